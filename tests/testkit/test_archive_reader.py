from pathlib import Path

import pytest
import zstandard

from testkit.archive.handwritten import (
    make_line,
    make_segment,
    make_skippable_frame,
    make_usage,
    write_file,
    write_gap,
    write_quarantine,
    write_segment,
)
from testkit.archive_reader import Span, read_archive
from testkit.history import digest


def ids(folder: Path, partition: int = 0) -> list[int]:
    return [line.id for line in read_archive(folder).partition(partition).lines]


def test_lines_are_read_across_frames_and_past_notes(tmp_path: Path) -> None:
    path = write_segment(tmp_path, [make_line(n, f"u{n}") for n in (1, 2, 3)])
    archive = read_archive(tmp_path)
    assert [tuple(line) for line in archive.partition(0).lines] == [
        (n, digest(make_usage(f"u{n}")), path.name, "") for n in (1, 2, 3)
    ]
    assert not archive.damaged
    assert not archive.torn


def test_segments_are_read_in_the_order_of_their_seqs_over_days(tmp_path: Path) -> None:
    write_segment(tmp_path, [make_line(3, "c")], day="2026-11-24")
    write_segment(tmp_path, [make_line(1, "a"), make_line(2, "b")], day="2026-11-23")
    assert ids(tmp_path) == [1, 2, 3]


def test_partitions_and_gaps_are_kept_apart(tmp_path: Path) -> None:
    write_segment(tmp_path, [make_line(1, "a")], partitions=2)
    write_segment(tmp_path, [make_line(2, "b")], partition=1, partitions=2)
    gap = write_gap(tmp_path, 2, 9, partition=1)
    archive = read_archive(tmp_path)
    assert sorted(archive.partitions) == [0, 1]
    assert archive.partition(1).gaps == [Span(2, 9, gap.name)]
    assert archive.partition(0).gaps == []


@pytest.mark.parametrize("tail", [b"", make_segment([make_line(3, "c")])[:-30], b"\0" * 40])
def test_open_segment_is_read_up_to_its_torn_tail(tmp_path: Path, tail: bytes) -> None:
    content = make_segment([make_line(1, "a"), make_line(2, "b")])
    name = "usages-p00-0000000000000001.ndjson.zst.open"
    write_file(tmp_path / "p00" / "2026-11-23" / name, content + tail)
    assert ids(tmp_path) == [1, 2]
    assert not read_archive(tmp_path).damaged


@pytest.mark.parametrize(
    "content",
    [
        make_segment([make_line(1, "a")])[:40],
        make_segment([make_line(1, "a")]) + b"no zstd frame",
        make_skippable_frame(b"x") + make_segment([{"id": 1}]),
        zstandard.ZstdCompressor().compress(b'{"id":1,"usage":{}}')
        + make_segment([make_line(2, "b")]),
    ],
    ids=["torn", "garbage", "no usage", "no newline"],
)
def test_published_segment_that_cannot_be_read_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = write_segment(tmp_path, [make_line(1, "a")])
    path.write_bytes(content)
    assert [path.name in problem for problem in read_archive(tmp_path).damaged] == [True]


def test_quarantined_entry_is_known_by_its_seqs(tmp_path: Path) -> None:
    path = write_quarantine(tmp_path, 3, 5)
    assert read_archive(tmp_path).partition(0).quarantined == [Span(3, 5, path.name)]


def test_segment_set_aside_is_damage_and_a_temporary_file_is_nothing(tmp_path: Path) -> None:
    path = write_segment(tmp_path, [make_line(1, "a")])
    path.rename(f"{path}.damaged2")
    write_file(path.with_suffix(".zst.tmp"), b"")
    assert read_archive(tmp_path).damaged == [f"{path.name}.damaged2: set aside"]
    assert ids(tmp_path) == []
