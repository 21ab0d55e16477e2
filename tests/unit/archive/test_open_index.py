"""The index of an open segment saves time, and never changes what recovery finds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from busyapi.archive import open_index
from busyapi.archive.compression import decompress
from busyapi.ids import Seq
from testkit.archive.builder import (
    abandon_writer,
    find_open_segment,
    find_open_segments,
    find_segments,
    make_batch,
    read_blocks,
    recover_writer,
    set_high_water,
)

BLOCKS = (3, 1, 4, 2)
ENTRY_BYTES = 60


@pytest.fixture(autouse=True)
def _write_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_index, "WRITE_INTERVAL_BYTES", 1)


def write_open_segment(root: Path, *, key: int = 0) -> Path:
    """Write an open segment with an index, kill its writer, and return the index."""
    writer = recover_writer(root)
    for at, count in enumerate(BLOCKS):
        writer.append([make_batch(writer.cursor + 1, count, 1_763_925_120_123 + key + at)])
    abandon_writer(writer)
    (path,) = root.rglob("_usages-*-open.index")
    return path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def find_block(root: Path, number: int) -> tuple[Path, int, int]:
    """Return an open segment, and the offset and end of one of its blocks."""
    path = find_open_segment(root)
    block = list(read_blocks(path))[number]
    return path, block.offset, block.end


def change_block(root: Path) -> None:
    path, _, end = find_block(root, 1)
    flip(path, end - 1)


def change_last_block(root: Path) -> None:
    path, _, end = find_block(root, 3)
    flip(path, end - 1)


def truncate_segment(root: Path) -> None:
    path, _, end = find_block(root, 3)
    path.write_bytes(path.read_bytes()[: end - 5])


def forget_last_blocks(root: Path) -> None:
    path, offset, _ = find_block(root, 2)
    path.write_bytes(path.read_bytes()[:offset])


def zero_block(root: Path) -> None:
    path, offset, end = find_block(root, 2)
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(end - offset) + data[end:])


def append_torn_block(root: Path) -> None:
    path, offset, end = find_block(root, 3)
    data = path.read_bytes()
    path.write_bytes(data + data[offset : end - 3])


SEGMENT_DAMAGES: list[Callable[[Path], None]] = [
    lambda _root: None,
    change_block,
    change_last_block,
    truncate_segment,
    forget_last_blocks,
    zero_block,
    append_torn_block,
]


def recover_completely(root: Path, high_water: int | None) -> tuple[object, ...]:
    """Recover; return all files with their bytes, the cursor, and what was reported."""
    set_high_water(root, high_water)
    writer = recover_writer(root)
    reports = [report.replace(str(root), "") for report in writer.damage_reports]
    figures = writer.cursor, writer.stats.highest_seq, reports
    abandon_writer(writer)
    files = {path.name: path.read_bytes() for path in root.glob("p00/*/*")}
    return *figures, files


@pytest.mark.parametrize("high_water", [None, 10])
@pytest.mark.parametrize("damage", SEGMENT_DAMAGES)
def test_recovery_finds_the_same_with_an_index_and_without(
    fast_path: Path, damage: Callable[[Path], None], high_water: int | None
) -> None:
    index = write_open_segment(fast_path / "a")
    damage(fast_path / "a")
    shutil.copytree(fast_path / "a", fast_path / "b")
    (fast_path / "b" / index.relative_to(fast_path / "a")).unlink()
    with_index = recover_completely(fast_path / "a", high_water)
    assert with_index == recover_completely(fast_path / "b", high_water)
    assert not list(fast_path.rglob("_usages-*-open.index"))


@pytest.mark.parametrize("damage", ["torn", "changed", "of another segment", "zeros", "folder"])
def test_a_useless_index_costs_no_usage(fast_path: Path, damage: str) -> None:
    index = write_open_segment(fast_path / "archive")
    match damage:
        case "torn":
            index.write_bytes(index.read_bytes()[:-70])
        case "changed":
            flip(index, ENTRY_BYTES + 9)
        case "of another segment":
            other = write_open_segment(fast_path / "other", key=7)
            assert len(other.read_bytes()) == len(BLOCKS) * ENTRY_BYTES
            index.write_bytes(other.read_bytes())
        case "zeros":
            index.write_bytes(bytes(len(BLOCKS) * ENTRY_BYTES))
        case _:
            index.unlink()
            index.mkdir()
    writer = recover_writer(fast_path / "archive")
    assert (writer.cursor, writer.damage_reports) == (10, [])
    assert [writer.find_line(Seq(seq)) is not None for seq in range(1, 11)] == [True] * 10
    writer.close()


@pytest.mark.parametrize("has_index", [True, False])
def test_an_open_segment_of_another_partition_is_kept_and_not_copied(
    fast_path: Path, *, has_index: bool
) -> None:
    recover_writer(fast_path, 0, 2).close()
    writer = recover_writer(fast_path, 1, 2)
    writer.append([make_batch(1, 3)])
    abandon_writer(writer)
    for path in fast_path.glob("p01/*/*"):
        if has_index or not path.name.startswith("_"):
            copy = fast_path / "p00" / path.parent.name / path.name.replace("p01", "p00")
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    content = find_open_segments(fast_path)[0].read_bytes()
    writer = recover_writer(fast_path, 0, 2)
    assert (writer.cursor, find_segments(fast_path)) == (0, [])
    (kept,) = fast_path.glob("p00/*/usages-*")
    assert kept.read_bytes() == content
    writer.close()


def test_frames_in_the_index_are_not_decompressed(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_open_segment(fast_path)
    index.write_bytes(index.read_bytes()[: 3 * ENTRY_BYTES])
    frames_read: list[bytes] = []

    def record(frame: bytes) -> bytes:
        frames_read.append(frame)
        return decompress(frame)

    monkeypatch.setattr("busyapi.archive.frames.decompress", record)
    path, offset, _ = find_block(fast_path, 3)
    last_frame = path.read_bytes()[offset:]
    recover_writer(fast_path).close()
    assert frames_read == [last_frame]


def test_a_finished_segment_leaves_no_open_index(fast_path: Path) -> None:
    index = write_open_segment(fast_path)
    writer = recover_writer(fast_path)
    writer.append([make_batch(11)])
    new_index = index.with_name("_usages-p00-0000000000000011-open.index")
    assert (index.exists(), new_index.exists()) == (False, True)
    writer.close()
    assert not new_index.exists()


def test_a_full_volume_costs_only_the_index(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(open_index, "failpoint", fail)
    writer = recover_writer(fast_path)
    for _ in range(3):
        writer.append([make_batch(writer.cursor + 1)])
    abandon_writer(writer)
    assert recover_writer(fast_path).cursor == 3
