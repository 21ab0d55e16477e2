"""Archives made at random, and what a disk or a person can do to them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from busyapi.archive import paths
from busyapi.ids import Seq
from testkit.archive.builder import abandon_writer, make_batch, read_blocks, recover_writer

Draw = Callable[[st.SearchStrategy[Any]], Any]

COUNTS = st.lists(st.integers(1, 4), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(st.sampled_from(["segment", "segment", "gap", "quarantine"]), COUNTS),
    min_size=1,
    max_size=5,
)
OPEN = st.lists(st.integers(1, 4), max_size=3)


class Expected:
    """What was done, in ids."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.damaged: set[int] = set()
        self.repeated: set[int] = set()
        self.doubt = False
        """A finished file is not what was written, whatever became of its blocks."""
        self.open_damaged = False
        """An open segment holds bytes that are no whole block any more, and were one."""
        self.partitions_missing = 0


class Archive(NamedTuple):
    """A partition as it was made."""

    folder: Path
    partition: int
    partitions: int

    def ids(self, first: int, last: int) -> set[int]:
        """Return the ids of these seqs."""
        step = self.partitions
        return {(seq - 1) * step + self.partition + 1 for seq in range(first, last + 1)}

    def files(self) -> list[Path]:
        """List the files in the day folders."""
        return sorted(self.folder.glob("*-*/*"))

    def ids_of(self, path: Path) -> set[int]:
        """Return the ids that a file answers for."""
        if path.suffix == ".open":
            return set().union(*(self.ids(each.first, each.last) for each in read_blocks(path)))
        first, last = map(int, re.findall(r"\d{16}", path.name))
        return self.ids(first, last)


def make_archive(root: Path, partition: int, partitions: int, draw: Draw) -> Archive:
    """Make a partition."""
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
    """What is to be done to one file, and where to write down what that is."""

    archive: Archive
    path: Path
    expected: Expected
    draw: Draw


def delete_file(deed: Damage) -> None:
    """Delete the file."""
    deed.expected.missing |= deed.archive.ids_of(deed.path)
    deed.path.unlink()


def duplicate_file(deed: Damage) -> None:
    """Copy the file into the folder of another day."""
    deed.expected.repeated |= deed.archive.ids_of(deed.path)
    day = deed.archive.folder / "2020-01-01"
    day.mkdir(exist_ok=True)
    shutil.copy(deed.path, day)


def leave_open_segment(deed: Damage) -> None:
    """Leave what recovery leaves: a finished segment, and the open one it was copied from."""
    if deed.path.name.endswith(".ndjson.zst"):
        name = re.sub(r"-\d{16}\.ndjson", ".ndjson", deed.path.name) + ".open"
        shutil.copy(deed.path, deed.path.with_name(name))


def change_file(deed: Damage) -> None:
    """Change one bit, or cut the file."""
    archive, path, expected, draw = deed
    data = path.read_bytes()
    at = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        changed = data[:at]
    else:
        bit = 1 << draw(st.integers(0, 7))
        changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    if path.name.startswith("usages"):
        ids, bytes_left = find_lost_ids(archive, path, changed)
        if path.suffix == ".open" and not bytes_left:
            expected.missing |= ids
        else:
            expected.damaged |= ids
            expected.open_damaged |= bool(ids) and path.suffix == ".open"
        expected.doubt |= path.suffix != ".open"
    elif parse_record(changed) != parse_record(data):
        expected.damaged |= archive.ids_of(path)
    path.write_bytes(changed)


def tear_open_segment(deed: Damage) -> None:
    """Write the begin of a block that was never synced."""
    path = deed.path
    if path.suffix == ".open":
        data = path.read_bytes()
        begin = data[list(read_blocks(path))[-1].offset :]
        path.write_bytes(data + begin[: deed.draw(st.integers(1, len(begin) - 1))])


def leave_temporary_file(deed: Damage) -> None:
    """Leave a temporary file, and break the older line of the mark."""
    deed.path.with_name(deed.path.name + ".tmp").write_bytes(b"x")
    mark = deed.archive.folder / paths.HIGH_WATER_NAME
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
    """Return the ids whose blocks do not hold in `data` any more, and whether bytes are left."""
    before, ids, end = path.read_bytes(), set[int](), 0
    for block in read_blocks(path):
        if data[block.offset : block.end] == before[block.offset : block.end]:
            end = block.end
        else:
            ids |= archive.ids(block.first, block.last)
    return ids, len(data) > end or len(data) == len(before)


def parse_record(data: bytes) -> object:
    """Return what a record says, but for its words on why and when, and what follows it."""
    head, _, raw = (data, b"", b"") if data.startswith(b"{\n") else data.partition(b"\n")
    try:
        said = json.loads(head)
        words = said.pop("why") + said.pop("when")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (said, raw) if isinstance(words, str) else None
