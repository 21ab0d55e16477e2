"""Random archives, and the damage that a disk or an operator can do to them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from hypothesis import strategies as st

from busyapi.archive import paths
from busyapi.ids import Seq
from testkit.archive.builder import (
    FRAME_MAGIC,
    abandon_writer,
    is_open_segment,
    make_batch,
    read_blocks,
    recover_writer,
)

Draw = Callable[[st.SearchStrategy[Any]], Any]

COUNTS = st.lists(st.integers(1, 4), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(st.sampled_from(["segment", "segment", "gap", "quarantine"]), COUNTS),
    min_size=1,
    max_size=5,
)
OPEN = st.lists(st.integers(1, 4), max_size=3)


class Expected:
    """The expected findings, in ids."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.damaged: set[int] = set()
        self.repeated: set[int] = set()
        self.finished_changed = False
        """A finished segment has changed, even if its blocks have not."""
        self.open_damaged = False
        """An open segment has bytes of a former complete block that is now broken."""
        self.partitions_missing = 0


class Archive(NamedTuple):
    """A partition before any damage."""

    folder: Path
    partition: int
    partitions: int

    def ids(self, first: int, last: int) -> set[int]:
        """Return the ids of these seqs."""
        step = self.partitions
        return {(seq - 1) * step + self.partition + 1 for seq in range(first, last + 1)}

    def files(self) -> list[Path]:
        """Return the files in the day folders, without indexes."""
        return sorted(self.folder.glob("*-*/[!_]*"))

    def ids_of(self, path: Path) -> set[int]:
        """Return the ids that a file covers."""
        if is_open_segment(path):
            return set().union(*(self.ids(block.first, block.last) for block in read_blocks(path)))
        first, last = map(int, re.findall(r"\d{16}", path.name))
        return self.ids(first, last)


def make_archive(root: Path, partition: int, partitions: int, draw: Draw) -> Archive:
    """Write a partition with random contents."""
    writer = recover_writer(root, partition, partitions, segment_bytes=1)
    for kind, counts in draw(STEPS):
        first, last = Seq(writer.cursor + 1), Seq(writer.cursor + sum(counts))
        if kind == "gap":
            writer.record_gap(last, "why")
        elif kind == "quarantine":
            writer.quarantine(first, last, b"raw" * 20, "why")
        else:
            for count in counts:
                writer.append([make_batch(writer.cursor + 1, count)])
            writer.roll_if_due()
    for count in draw(OPEN):
        writer.append([make_batch(writer.cursor + 1, count)])
    abandon_writer(writer)
    return Archive(root / f"p{partition:02d}", partition, partitions)


class Damage(NamedTuple):
    """The file to damage, and the expected findings to update."""

    archive: Archive
    path: Path
    expected: Expected
    draw: Draw


def delete_file(damage: Damage) -> None:
    """Delete the file."""
    damage.expected.missing |= damage.archive.ids_of(damage.path)
    damage.path.unlink()


def duplicate_file(damage: Damage) -> None:
    """Copy the file into the folder of another day."""
    damage.expected.repeated |= damage.archive.ids_of(damage.path)
    day = damage.archive.folder / "2020-01-01"
    day.mkdir(exist_ok=True)
    shutil.copy(damage.path, day)


def leave_open_segment(damage: Damage) -> None:
    """Leave the open segment next to the finished one, as a crash before the unlink does."""
    if damage.path.name.endswith(".ndjson.zst"):
        name = re.sub(r"-\d{16}\.ndjson", ".ndjson", damage.path.name) + ".open"
        shutil.copy(damage.path, damage.path.with_name(name))


def change_file(damage: Damage) -> None:
    """Change one bit, or truncate the file."""
    archive, path, expected, draw = damage
    data = path.read_bytes()
    at = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        changed = data[:at]
    else:
        bit = 1 << draw(st.integers(0, 7))
        changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    if path.name.startswith("usages"):
        ids, has_rest = find_lost_ids(archive, path, changed)
        if is_open_segment(path) and not has_rest:
            expected.missing |= ids
        else:
            expected.damaged |= ids
            expected.open_damaged |= bool(ids) and is_open_segment(path)
        expected.finished_changed |= not is_open_segment(path)
    elif parse_record(changed) != parse_record(data):
        expected.damaged |= archive.ids_of(path)
    path.write_bytes(changed)


def tear_open_segment(damage: Damage) -> None:
    """Append the start of a block, as in a write that was never synced."""
    path = damage.path
    if is_open_segment(path):
        data = path.read_bytes()
        block = data[list(read_blocks(path))[-1].offset :]
        path.write_bytes(data + block[: damage.draw(st.integers(1, len(block) - 1))])


def leave_temporary_file(damage: Damage) -> None:
    """Leave a temporary file, and damage the older line of the high-water mark."""
    damage.path.with_name(damage.path.name + ".tmp").write_bytes(b"x")
    mark = damage.archive.folder / paths.HIGH_WATER_NAME
    lines = mark.read_bytes().splitlines(keepends=True)
    lines[lines.index(min(lines))] = b"?" * len(min(lines))
    mark.write_bytes(b"".join(lines))


DAMAGES = [
    delete_file,
    duplicate_file,
    leave_open_segment,
    change_file,
    change_file,
    tear_open_segment,
    leave_temporary_file,
]


def find_lost_ids(archive: Archive, path: Path, data: bytes) -> tuple[set[int], bool]:
    """Return the ids whose blocks have changed in `data`, and whether other bytes remain."""
    before, ids, end = path.read_bytes(), set[int](), 0
    for block in read_blocks(path):
        if _is_same_block(data[block.offset : block.end], before[block.offset : block.end]):
            end = block.end
        else:
            ids |= archive.ids(block.first, block.last)
    return ids, len(data) > end or len(data) == len(before)


def _is_same_block(data: bytes, before: bytes) -> bool:
    """Return whether a block has not changed. Some bits of a zstd frame mean nothing."""
    if data == before or not before.startswith(FRAME_MAGIC) or len(data) < len(before):
        return data == before
    try:
        return _decompress(data) == _decompress(before)
    except zstandard.ZstdError:
        return False


def _decompress(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)


def parse_record(data: bytes) -> object:
    """Return a record without its reason and time, and the bytes after it."""
    head, _, raw = (data, b"", b"") if data.startswith(b"{\n") else data.partition(b"\n")
    try:
        members = json.loads(head)
        text = members.pop("why") + members.pop("when")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (members, raw) if isinstance(text, str) else None
