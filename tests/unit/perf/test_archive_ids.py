import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from perf import archive_ids
from perf.archive_ids import count_lines

NOTE = struct.pack("<II", 0x184D2A5B, 5) + b"hello"
"""A skippable frame."""


def make_lines(ids: Iterable[int]) -> bytes:
    return b"".join(b'{"id":%d,"usage":{"id":7}}\n' % usage_id for usage_id in ids)


def write_frames(folder: Path, name: str, *frames: bytes, end: bytes = b"") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    compressor = zstandard.ZstdCompressor()
    content = b"".join(NOTE + compressor.compress(frame) for frame in frames)
    (folder / name).write_bytes(content + NOTE + end)


def segment_name(first: int, last: int) -> str:
    return f"usages-p00-{first:016d}-{last:016d}.ndjson.zst"


def test_lines_are_counted_over_frames_files_and_days(tmp_path: Path) -> None:
    write_frames(
        tmp_path / "p00/2026-12-01",
        segment_name(1, 30),
        make_lines(range(1, 21)),
        make_lines(range(21, 31)),
    )
    write_frames(tmp_path / "p00/2026-12-02", segment_name(31, 40), make_lines(range(31, 41)))
    write_frames(
        tmp_path / "p00/2026-12-02",
        "usages-p00-0000000000000041.ndjson.zst.open",
        make_lines([41, 42]),
    )
    archived = count_lines(tmp_path)
    assert (archived.lines, archived.last, archived.fault) == (42, 42, "")


def test_an_empty_archive_has_no_lines(tmp_path: Path) -> None:
    assert count_lines(tmp_path).lines == 0


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ([1, 2, 4], "id 4 where 3 should be"),
        ([1, 2, 2], "id 2 where 3 should be"),
        ([1, 3, 2], "id 3 where 2 should be"),
        ([2, 3], "id 2 where 1 should be"),
    ],
)
def test_a_missing_repeated_or_misplaced_id_is_named(
    tmp_path: Path, ids: list[int], fault: str
) -> None:
    write_frames(tmp_path, segment_name(1, 3), make_lines(ids))
    archived = count_lines(tmp_path)
    assert archived.lines == len(ids)
    assert fault in archived.fault


def test_the_first_fault_is_kept(tmp_path: Path) -> None:
    write_frames(tmp_path, segment_name(1, 3), make_lines([1, 3]))
    write_frames(tmp_path, segment_name(4, 9), make_lines([4, 9]))
    assert "id 3 where 2" in count_lines(tmp_path).fault


def test_a_line_without_an_id_is_a_fault(tmp_path: Path) -> None:
    write_frames(tmp_path, segment_name(1, 2), make_lines([1]) + b'{"usage":{"id":2}}\n')
    assert "1 lines without an id" in count_lines(tmp_path).fault


def test_lines_across_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_ids, "CHUNK_BYTES", 10)
    write_frames(
        tmp_path, segment_name(1, 200), make_lines(range(1, 101)), make_lines(range(101, 201))
    )
    archived = count_lines(tmp_path)
    assert (archived.lines, archived.fault) == (200, "")


def test_files_of_another_kind_are_skipped(tmp_path: Path) -> None:
    write_frames(tmp_path, segment_name(1, 1), make_lines([1]))
    (tmp_path / (segment_name(2, 3) + ".damaged")).write_bytes(b"?")
    (tmp_path / "gap-p00-0000000000000002-0000000000000003.json").write_text("{}")
    assert count_lines(tmp_path).lines == 1


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    write_frames(tmp_path, segment_name(1, 1), make_lines([1]), end=b"not zstd")
    with pytest.raises(zstandard.ZstdError):
        count_lines(tmp_path)
