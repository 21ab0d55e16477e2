"""Verify reports each kind of defect that these tests make, and nothing else."""

import json
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from busyapi.archive import paths
from busyapi.archive.reader import scan_blocks
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import select_lines
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.archive_cli.verify import (
    ArchiveProblem,
    PartitionReport,
    estimate_bytes,
    verify_archive,
)
from busyapi.ids import Seq
from busyapi.strides import IdScheme
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    change_identity,
    find_open_segment,
    find_segments,
    make_batch,
    read_blocks,
    recover_writer,
    seal_footer,
    set_high_water,
    write_blocks,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make one file of each kind: segments 1-5, 6-8, gap 9-10, quarantine 11, segment 12-13."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder, segment_bytes=1)
    writer.append([make_batch(1, 2), make_batch(3, 1, received_ms=RECEIVED_MS + 7)])
    writer.append([make_batch(4, 2)])
    writer.roll_if_due()
    writer.append([make_batch(6, 3)])
    writer.record_gap(Seq(10), "why")
    writer.quarantine(Seq(11), Seq(11), b"raw", "why")
    writer.append([make_batch(12, 2)])
    writer.close()
    return folder


def check(root: Path) -> PartitionReport:
    """Verify the one partition of an archive."""
    (report,) = verify_archive(root)
    return report


def list_problems(root: Path) -> list[tuple[str, str]]:
    """Return each problem's kind and ids."""
    return [(problem.kind, problem.where) for problem in check(root).problems]


def find_first(root: Path, pattern: str) -> Path:
    """Return the first file of a pattern."""
    return min(root.rglob(pattern))


def test_an_intact_archive_has_no_problem_and_its_stats_are_reported(root: Path) -> None:
    report = check(root)
    assert report.problems == []
    assert report.notes == []
    assert (report.usages, report.cursor) == (10, 13)
    assert (report.gaps, report.skipped, report.quarantined) == (1, 2, 1)


def parse_record(data: bytes) -> dict[str, Any]:
    """Return the members of a gap or quarantine record except why and when."""
    try:
        record = json.loads(data if data.startswith(b"{\n") else data.partition(b"\n")[0])
    except ValueError:
        return {}
    return {name: record[name] for name in record if name not in {"why", "when"}}


@pytest.mark.formats(1, 2)
def test_every_changed_byte_of_every_file_is_found(root: Path) -> None:
    for path in sorted(root.glob("p00/*/*")):
        data = path.read_bytes()
        for at in range(len(data)):
            changed = data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :]
            path.write_bytes(changed)
            problems = check(root).problems
            if problems:
                kind = "unknown" if parse_record(changed).get("format", 1) > 1 else "damaged"
                assert {problem.kind for problem in problems} == {kind}
                name = path.name.removeprefix("_").removesuffix(".index")
                assert all(name in problem.detail for problem in problems)
            else:
                assert path.suffix not in {".zst", ".index"}, f"{path.name}, byte {at}"
                assert parse_record(changed) == parse_record(data), f"{path.name}, byte {at}"
                assert path.suffix == ".json" or changed.endswith(b"\nraw")
        path.write_bytes(data)
    assert not check(root).problems


@pytest.mark.formats(1, 2)
def test_every_length_that_a_file_is_cut_to_is_found(root: Path) -> None:
    for path in sorted(root.glob("p00/*/*usages*")):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            assert check(root).problems, f"{path.name} cut to {length}"
        path.write_bytes(data)


@pytest.mark.formats(1, 2)
def test_damage_is_reported_with_the_ids_in_doubt(root: Path) -> None:
    path = find_segments(root)[0]
    second = list(read_blocks(path))[1]
    data = bytearray(path.read_bytes())
    data[second.offset + 70] ^= 1
    path.write_bytes(data)
    problems = list_problems(root)
    assert ("damaged", "ids 4 to 5") in problems
    assert check(root).usages == 8


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("usages*1-*5.ndjson.zst", "ids 1 to 5"),
        ("usages*6-*8.ndjson.zst", "ids 6 to 8"),
        ("gap*", "ids 9 to 10"),
        ("quarantine*", "id 11"),
    ],
)
def test_a_missing_file_is_reported_by_its_ids(root: Path, pattern: str, ids: str) -> None:
    find_first(root, pattern).unlink()
    assert list_problems(root) == [("missing", ids)]


def test_a_second_copy_of_a_file_is_reported_as_repeated(root: Path) -> None:
    path = find_first(root, "usages*6-*8.ndjson.zst")
    other = path.parent.with_name("2020-01-01")
    other.mkdir()
    shutil.copy(path, other)
    assert list_problems(root) == [("repeated", "ids 6 to 8")]


def test_a_gap_record_over_archived_usages_is_reported_as_repeated(root: Path) -> None:
    path = find_first(root, "gap*")
    record = json.loads(path.read_text()) | {"from": 8, "to": 12}
    path.unlink()
    path.with_name("gap-p00-0000000000000008-0000000000000012.json").write_text(json.dumps(record))
    assert list_problems(root) == [
        ("repeated", "id 8"),
        ("repeated", "id 11"),
        ("repeated", "id 12"),
    ]


@pytest.mark.parametrize("pattern", ["gap*", "quarantine*", "usages*"])
def test_a_file_under_another_name_is_reported(root: Path, pattern: str) -> None:
    path = find_first(root, pattern)
    path.rename(path.with_name(path.name.replace("p00-00", "p00-01")))
    assert {"damaged", "missing"} <= {kind for kind, _ in list_problems(root)}


def rewrite_segment(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Rewrite a segment of one block with other lines and valid checksums."""
    data = path.read_bytes()
    (block,) = read_blocks(path)
    lines = zstandard.ZstdDecompressor().decompress(data[68 : block.end]).splitlines()
    raw = b"".join(line + b"\n" for line in change(lines))
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(raw)
    head = data[:56] + struct.pack("<II", len(frame), zlib.crc32(frame))
    body = bytearray(data[block.end : block.end + 100])
    body[48:56] = struct.pack("<Q", len(raw))
    footer = bytes(body) + struct.pack("<I", zlib.crc32(body))
    path.write_bytes(seal_footer(head + struct.pack("<I", zlib.crc32(head)) + frame + footer))


def replace_in_lines(old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [line.replace(old, new) for line in lines]


@pytest.mark.formats(1)
def test_a_segment_rewritten_without_a_change_has_no_problem(root: Path) -> None:
    """This is the control of the tests below: they detect the change, not the rewrite."""
    rewrite_segment(find_first(root, "usages*6-*8.ndjson.zst"), list)
    assert not check(root).problems


@pytest.mark.formats(1)
@pytest.mark.parametrize(
    ("change", "where"),
    [
        (replace_in_lines(b'"id":7', b'"id":8'), "id 7"),
        (lambda lines: [lines[1], lines[0], lines[2]], "ids 6 to 7"),
        (lambda lines: lines[:2], "ids 6 to 8"),
        (lambda lines: [lines[0] + lines[1], b"", lines[2]], "ids 6 to 7"),
        # As many objects as lines.
        (
            lambda lines: [lines[0][:-2] + b',"":[{"":{}}', b"]}}" + lines[1], lines[2]],
            "ids 6 to 7",
        ),
        (lambda lines: [*lines, lines[2]], "ids 6 to 8"),
        (replace_in_lines(b"}}", b"}"), "ids 6 to 8"),
        (replace_in_lines(b'"usage":{', b'"usage":{"\xff":1,'), "ids 6 to 8"),
        (replace_in_lines(b'"usage":{', b'"more":1,"usage":{'), "ids 6 to 8"),
        (replace_in_lines(b'"usage":{"patientId":"6"', b'"usage":[],"x":{"a":1'), "id 6"),
        (replace_in_lines(b"2025-11-23T19:12:00.123Z", b"2025-11-23T19:12:00.124Z"), "ids 6 to 8"),
        (replace_in_lines(b"2025-11-23T19:12:00.123Z", b"2025-11-23 19:12:00.123Z"), "ids 6 to 8"),
        (replace_in_lines(b'"receivedAt":"2025-11-23T19:12:00.123Z",', b""), "ids 6 to 8"),
        (replace_in_lines(b'"2025-11-23T19:12:00.123Z"', b"1763925120123"), "ids 6 to 8"),
    ],
)
def test_wrong_lines_under_valid_checksums_are_reported(
    root: Path, change: Callable[[list[bytes]], list[bytes]], where: str
) -> None:
    rewrite_segment(find_first(root, "usages*6-*8.ndjson.zst"), change)
    assert list_problems(root) == [("damaged", where)]


@pytest.mark.formats(1)
@pytest.mark.parametrize("at", [16, 20, 24, 32, 40, 48, 60, 68, 76, 84, 92])
def test_a_wrong_footer_under_valid_checksums_is_reported(root: Path, at: int) -> None:
    path = find_first(root, "usages*6-*8.ndjson.zst")
    data, (block,) = bytearray(path.read_bytes()), read_blocks(path)
    data[block.end + at] += 1
    body = bytes(data[block.end : block.end + 100])
    footer = body + struct.pack("<I", zlib.crc32(body))
    path.write_bytes(seal_footer(bytes(data[: block.end]) + footer))
    assert list_problems(root) == [("damaged", "")]


@pytest.mark.formats(1)
def test_a_footer_with_the_sha256_of_other_bytes_is_reported(root: Path) -> None:
    path = find_segments(root)[0]
    data = bytearray(path.read_bytes())
    data[-44] ^= 1
    path.write_bytes(data)
    (problem,) = check(root).problems
    assert "SHA-256" in problem.detail


@pytest.mark.formats(1, 2)
def test_an_open_segment_counts_up_to_its_last_whole_block(root: Path) -> None:
    path = write_blocks(root, 2, 1)
    path.write_bytes(path.read_bytes()[:-1])
    set_high_water(root, 15)
    report = check(root)
    assert not report.problems
    assert (report.cursor, report.usages) == (15, 12)
    (note,) = report.notes
    assert "open" in note
    assert "ids 14 to 15" in note


@pytest.mark.formats(1, 2)
def test_damage_within_an_open_segment_is_reported(root: Path) -> None:
    path = write_blocks(root, 2, 1)
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert list_problems(root) == [("damaged", "ids 14 to 15")]


@pytest.mark.formats(1, 2)
def test_bytes_between_two_blocks_are_reported(root: Path) -> None:
    path = write_blocks(root, 2, 1)
    data, second = path.read_bytes(), list(read_blocks(path))[1].offset
    path.write_bytes(data[:second] + b"strange" + data[second:])
    assert list_problems(root) == [("damaged", "")]


def test_seqs_beyond_the_cursor_in_a_file_set_aside_are_missing(root: Path) -> None:
    path = find_segments(root)[-1]
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    recover_writer(root).close()
    assert list_problems(root) == [("missing", "ids 12 to 13")]
    writer = recover_writer(root)
    writer.record_gap(Seq(13), "accepted")
    writer.close()
    report = check(root)
    assert not report.problems
    (note,) = report.notes
    assert "set aside" in note


def test_an_unknown_file_is_noted_and_a_temporary_one_is_not(root: Path) -> None:
    day = find_segments(root)[0].parent
    (day / "usages-p01-0000000000000001-0000000000000005.ndjson.zst").write_bytes(b"")
    (day / "gap-p00-0000000000000014-0000000000000014.json.tmp").write_bytes(b"")
    report = check(root)
    assert not report.problems
    assert len(report.notes) == 1


def test_all_partitions_are_checked_and_their_ids_reported(tmp_path: Path) -> None:
    for partition in (0, 1, 3):
        write_blocks(tmp_path, 2, partition=partition, partitions=4)
        recover_writer(tmp_path, partition, 4).close()
    path = find_first(tmp_path, "p03/*/usages*")
    path.rename(path.with_name("usages-p03-0000000000000003-0000000000000004.ndjson.zst"))
    reports = list(verify_archive(tmp_path))
    assert [report.number for report in reports] == [0, 1, 2, 3]
    assert [bool(report.problems) for report in reports] == [False, False, True, True]
    assert [(problem.kind, problem.where) for problem in reports[2].problems] == [("missing", "")]
    assert (
        ArchiveProblem("missing", "ids 4 to 8 in steps of 4", "in no file") in reports[3].problems
    )


@pytest.mark.parametrize("text", [None, "", '{"format":0}'])
def test_a_partition_without_a_readable_identity_is_a_problem(root: Path, text: str | None) -> None:
    path = root / "p00" / paths.IDENTITY_NAME
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert list_problems(root) == [("damaged", "")]


def test_verify_without_an_archive_raises(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ArchiveNotFound):
            list(verify_archive(path))
    (tmp_path / "p00").mkdir()
    with pytest.raises(ArchiveNotFound):
        list(verify_archive(tmp_path))


def test_below_the_retention_floor_nothing_is_missing(root: Path) -> None:
    find_segments(root)[0].unlink()
    path = root / "p00" / paths.IDENTITY_NAME
    change_identity(path, keptFrom=6)
    assert list_problems(root) == []
    change_identity(path, keptFrom=5)
    assert list_problems(root) == [("missing", "id 5")]


def test_files_below_the_retention_floor_are_noted(root: Path) -> None:
    """Retention died before the unlink, or the floor has changed."""
    path = root / "p00" / paths.IDENTITY_NAME
    change_identity(path, keptFrom=6)
    report = check(root)
    assert not report.problems
    (note,) = report.notes
    assert "below the retention floor, seq 6" in note


def test_a_live_archive_has_no_problem_while_it_is_written(fast_path: Path) -> None:
    writer = recover_writer(fast_path, segment_bytes=1500)
    writer.append([make_batch(1)])

    def archive() -> None:
        for step in range(300):
            writer.append([make_batch(writer.cursor + 1, 5)])
            writer.roll_if_due()
            if step % 20 == 0:
                writer.record_gap(Seq(writer.cursor + 3), "why")
            time.sleep(0.003)

    thread = threading.Thread(target=archive)
    thread.start()
    times = 0
    while thread.is_alive():
        cursor = writer.cursor
        report = check(fast_path)
        assert not report.problems
        assert report.cursor >= cursor
        times += 1
    assert times > 5
    assert writer.stats.finished_segments > 20
    abandon_writer(writer)


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("file_end", ["within the second", "behind the second"])
def test_blocks_written_after_a_torn_one_was_read_do_not_make_it_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_end: str
) -> None:
    """The file ended within the second block when the read began. Now a third block follows."""
    path = write_blocks(tmp_path, 2, 1, 1)
    first, second, third = read_blocks(path)
    end = second.end - 1 if file_end == "within the second" else third.end - 1
    data = bytearray(path.read_bytes())
    if file_end == "behind the second":
        data[second.end - 1] ^= 1
    path.write_bytes(data)
    with path.open("rb") as file:
        real = os.fstat(file.fileno())
        old_stat = os.stat_result([*real[:6], end, *real[7:]])
        monkeypatch.setattr(os, "fstat", lambda _: old_stat)
        assert [block.end for block in scan_blocks(file.fileno(), IdScheme.fixed(0, 1))] == [
            first.end
        ]


def test_memory_does_not_grow_with_the_archive(fast_path: Path) -> None:
    import tracemalloc  # noqa: PLC0415

    def measure_peak() -> int:
        tracemalloc.start()
        assert not check(fast_path).problems
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    writer = recover_writer(fast_path, segment_bytes=100_000)
    for _ in range(5):
        writer.append([make_batch(writer.cursor + 1, 2000)])
    small_peak = measure_peak()
    for _ in range(50):
        writer.append([make_batch(writer.cursor + 1, 2000)])
        writer.roll_if_due()
    assert measure_peak() < small_peak * 1.5
    writer.close()


@pytest.mark.formats(1, 2)
def test_verify_and_cat_follow_a_segment_that_was_finished_after_they_listed_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blocks(root, 2)
    path = find_open_segment(root)
    listed = list(paths.scan_names(root / "p00"))
    recover_writer(root).close()
    assert not path.exists()
    real = paths.scan_names
    listings = [listed, listed]
    monkeypatch.setattr(paths, "scan_names", lambda of: listings.pop() if listings else real(of))
    report = check(root)
    assert not report.problems
    assert report.usages == 12
    listings += [listed, listed]
    reports: list[str] = []
    (status,) = find_partitions(root)
    assert status.partition
    counts = [
        lines.count(b"\n") for lines in select_lines(status.partition, Query(), reports.append)
    ]
    assert not listings
    assert (sum(counts), reports) == (12, [])


def test_a_segment_without_an_index_that_holds_more_than_its_name_says_is_damaged(
    tmp_path: Path,
) -> None:
    """Recovery would set it aside."""
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.append([make_batch(4, 3)])
    writer.close()
    (path,) = find_segments(tmp_path)
    (tmp_path / "p00" / path.parent.name / f"_{path.name.partition('.')[0]}.index").unlink()
    path.rename(path.with_name(path.name.replace("0006", "0003")))
    set_high_water(tmp_path, 3)
    (problem,) = check(tmp_path).problems
    assert (problem.kind, problem.where) == ("damaged", "ids 4 to 6")


def test_a_file_that_is_no_longer_there_is_damage_and_the_rest_is_checked(root: Path) -> None:
    """As if it was renamed after the files were listed, which must not end the verification."""
    segment = find_segments(root)[1]
    segment.unlink()
    segment.symlink_to("gone")
    assert estimate_bytes(root) > 0
    (report,) = verify_archive(root)
    assert [problem.kind for problem in report.problems] == ["damaged"]
    assert report.usages
