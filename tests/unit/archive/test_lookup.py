import errno
import json
import os
import time
from pathlib import Path

import pytest

from busyapi import cli
from busyapi.archive import lookup, paths, segment
from busyapi.archive.format import BlockHeader, SegmentIndex, SegmentSummary
from busyapi.archive.index_file import decode_index, encode_index
from busyapi.archive.paths import ArchiveFile, utc_day
from busyapi.archive.reader import read_summary
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveDamaged, UsageExpired
from busyapi.ids import Seq
from testkit.archive.builder import (
    DAY_MS,
    RECEIVED_MS,
    abandon_writer,
    find_open_segment,
    find_segments,
    make_batch,
    now_ms,
    read_ids,
    recover_writer,
)


def find_id(writer: PartitionWriter, seq: int) -> int | None:
    """Return the id in the line of a seq, or None."""
    line = writer.find_line(Seq(seq))
    return json.loads(line)["id"] if line else None


def age(root: Path, days: int) -> None:
    """Move everything that is written so far some days into the past."""
    now = utc_day()
    for folder in root.glob(f"p00/{now}"):
        seconds = folder.stat().st_mtime - days * DAY_MS / 1000
        folder.rename(folder.with_name(utc_day(seconds)))


@pytest.mark.formats(1, 2)
def test_every_seq_is_found_at_every_boundary_and_no_other(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.append([make_batch(1, 3), make_batch(4)])
    writer.append([make_batch(5, 2)])
    writer.roll_if_due()
    writer.append([make_batch(7)])
    writer.roll_if_due()
    writer.record_gap(Seq(10), "why")
    writer.quarantine(Seq(11), Seq(11), b"raw", "why")
    writer.append([make_batch(12, 2)])
    writer.append([make_batch(14)])
    for restart in (False, True):
        if restart:
            abandon_writer(writer)
            writer = recover_writer(tmp_path)
        for seq in range(-1, 17):
            expected = seq if 1 <= seq <= 14 and not 8 <= seq <= 11 else None
            assert find_id(writer, seq) == expected
    writer.close()


def test_ids_of_several_partitions_are_those_of_their_seqs(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 2, 4)
    writer.append([make_batch(1, 3)])
    assert [find_id(writer, seq) for seq in (1, 2, 3)] == [3, 7, 11]
    writer.close()


@pytest.mark.formats(1, 2)
def test_lookups_keep_few_footers_and_read_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    for seq in range(1, 31):
        writer.append([make_batch(seq)])
        writer.roll_if_due()
    reads: list[int] = []

    def count(fd: int, folder: Path, file: ArchiveFile) -> SegmentSummary | None:
        reads.append(fd)
        return read_summary(fd, folder, file)

    monkeypatch.setattr(lookup, "read_summary", count)
    for _ in range(3):
        assert find_id(writer, 17) == 17
    assert len(reads) == 1
    for seq in range(1, 31):
        assert find_id(writer, seq) == seq
    assert writer._lookup._summary.cache_info().currsize == lookup.SUMMARY_CACHE_SIZE
    writer.close()


def test_while_a_segment_is_finished_its_lines_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.append([make_batch(1)])
    ids_found = []
    add = writer._lookup.add_file

    def find_and_add(file: paths.ArchiveFile) -> None:
        ids_found.append(find_id(writer, 1))
        add(file)
        ids_found.append(find_id(writer, 1))

    monkeypatch.setattr(writer._lookup, "add_file", find_and_add)
    assert writer.roll_if_due()
    assert ids_found == [1, 1]
    writer.close()


@pytest.mark.parametrize("checksums", [b"of another file", None])
def test_an_index_with_other_blocks_hides_no_usage(
    tmp_path: Path, checksums: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(tmp_path)
    for _ in range(3):
        writer.append([make_batch(writer.cursor + 1)])
    writer.record_gap(Seq(4), "why")
    (path,) = tmp_path.rglob("_usages-*.index")
    summary = decode_index(path.read_bytes())
    assert summary
    entries = SegmentIndex()
    for number, entry in enumerate(summary.block_index):
        offset = entry.offset + (number == 2)
        entries.add(offset, BlockHeader(0, 1, *entry[2:], length=0, checksum=0))
    stale = summary._replace(block_index=entries, checksums=(checksums or summary.checksums)[:8])
    path.write_bytes(encode_index(stale))
    assert [find_id(writer, seq) for seq in (1, 2, 3)] == [1, 2, 3]
    assert writer.damage_reports == []
    writer.close()
    assert cli.main(["archive", "cat", "--id", "3", "--dir", str(tmp_path)]) == 0
    assert '{"id":3,' in capsys.readouterr().out


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("where", ["block", "footer", "open", "missing"])
def test_a_damaged_block_is_not_returned(tmp_path: Path, where: str) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    if where != "open":
        writer.record_gap(Seq(4), "why")
    path = find_open_segment(tmp_path) if where == "open" else find_segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[-60 if where == "footer" else 80] ^= 1
    path.write_bytes(data)
    if where == "missing":
        path.unlink()
    for seq in (2, 3):
        with pytest.raises(ArchiveDamaged):
            writer.find_line(Seq(seq))
        assert writer.stats.damaged_files == 1
    (damage,) = writer.damage_reports
    assert path.name in damage
    abandon_writer(writer)


def test_a_bad_sector_in_a_lookup_is_reported_as_damage_and_other_errors_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.record_gap(Seq(4), "why")
    for number, damage_reports in ((errno.EMFILE, 0), (errno.EIO, 1), (errno.EIO, 1)):

        def fail(*_: object, number: int = number) -> bytes:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "pread", fail)
            with pytest.raises(OSError, match=os.strerror(number)):
                writer.find_line(Seq(2))
        assert len(writer.damage_reports) == writer.stats.damaged_files == damage_reports
    assert find_segments(tmp_path)[0].name in writer.damage_reports[0]
    writer.close()


def test_damage_in_an_open_segment_is_counted_once_even_after_it_is_finished(
    tmp_path: Path,
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.append([make_batch(1, 3)])
    path = find_open_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(ArchiveDamaged):
            writer.find_line(Seq(2))
        writer.roll_if_due()
    assert (
        writer.stats.damaged_files,
        len(writer.damage_reports),
        writer.stats.finished_segments,
    ) == (
        1,
        1,
        1,
    )
    abandon_writer(writer)


def test_a_segment_rolls_at_its_size_its_age_its_blocks_and_at_midnight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=200, segment_age=1e9)
    assert not writer.roll_if_due()
    writer.append([make_batch(1)])
    assert not writer.roll_if_due()
    writer.append([make_batch(2)])
    assert writer.stats.open_bytes >= 200
    assert writer.roll_if_due()
    assert (writer.stats.open_bytes, writer.stats.finished_segments) == (0, 1)

    writer.append([make_batch(3)])
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: 1e10)
        assert writer.roll_if_due()

    writer.append([make_batch(4)])
    with monkeypatch.context() as patched:
        patched.setattr(segment, "MAX_BLOCKS", 1)
        assert writer.roll_if_due()

    writer.append([make_batch(5)])
    with monkeypatch.context() as patched:
        patched.setattr(paths, "utc_day", lambda: "2999-01-01")
        assert writer.roll_if_due()
    assert [path.parent.name for path in find_segments(tmp_path)] == [utc_day()] * 4
    writer.close()
    assert read_ids(tmp_path) == [1, 2, 3, 4, 5]


def test_retention_deletes_whole_old_segments_and_raises_the_floor(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.append([make_batch(1, 3)])
    writer.roll_if_due()
    writer.quarantine(Seq(4), Seq(5), b"raw", "why")
    writer.record_gap(Seq(7), "why")
    writer.append([make_batch(8)])
    writer.close()
    age(tmp_path, 3)
    writer = recover_writer(tmp_path)
    writer.append([make_batch(9, received_ms=now_ms())])
    writer.close()

    writer = recover_writer(tmp_path, retention_days=3)
    writer.roll_if_due()
    assert (writer.identity.kept_from, find_id(writer, 1)) == (1, 1), (
        "three days old is not older than three days"
    )
    writer.close()

    writer = recover_writer(tmp_path, retention_days=2)
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.cursor, writer.stats.skipped_seqs) == (9, 9, 2)
    for seq in (1, 3, 4, 8):
        with pytest.raises(UsageExpired):
            writer.find_line(Seq(seq))
    assert find_id(writer, 9) == 9
    assert find_id(writer, 10) is None
    writer.append([make_batch(10)])
    abandon_writer(writer)
    assert read_ids(tmp_path) == [9, 10]
    assert not list(tmp_path.rglob("*.bin"))
    assert len(list(tmp_path.rglob("gap*"))) == 1

    writer = recover_writer(tmp_path)
    assert (
        writer.identity.kept_from,
        writer.cursor,
        writer.stats.highest_seq,
        writer.stats.skipped_seqs,
    ) == (
        9,
        10,
        10,
        2,
    )
    writer.close()


def test_retention_of_everything_leaves_the_cursor_where_it_was(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.close()
    age(tmp_path, 9)
    writer = recover_writer(tmp_path, retention_days=1)
    writer.append([make_batch(4, received_ms=now_ms())])
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.cursor) == (4, 4)
    writer.close()
    assert read_ids(tmp_path) == [4]
    assert [path.name for path in tmp_path.glob("p00/*-*")] == [utc_day()], "empty folders remain"
    writer = recover_writer(tmp_path)
    writer.append([make_batch(5)])
    writer.close()
    assert read_ids(tmp_path) == [4, 5]


def test_retention_also_uses_the_time_of_the_usages(tmp_path: Path) -> None:
    """This machine's clock was in 1970 when the folder was made; the senders' clocks were not."""
    tomorrow_ms = 4_000_000_000_000
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, received_ms=RECEIVED_MS), make_batch(2, received_ms=tomorrow_ms)])
    writer.close()
    (day,) = tmp_path.glob("p00/*-*")
    day.rename(day.with_name("1970-01-01"))
    writer = recover_writer(tmp_path, retention_days=1)
    writer.roll_if_due()
    assert (writer.identity.kept_from, find_id(writer, 1)) == (1, 1)
    writer.close()


def test_files_below_the_floor_are_deleted_by_the_next_process(tmp_path: Path) -> None:
    """The process died after the floor was raised, before the unlink."""
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 2)])
    writer.close()
    (old,) = find_segments(tmp_path)
    data = old.read_bytes()
    age(tmp_path, 9)
    writer = recover_writer(tmp_path, retention_days=1)
    writer.append([make_batch(3, received_ms=now_ms())])
    writer.roll_if_due()
    writer.close()
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(data)
    writer = recover_writer(tmp_path, retention_days=10_000)
    assert (writer.cursor, writer.stats.highest_seq, writer.identity.kept_from) == (3, 3, 3)
    with pytest.raises(UsageExpired):
        writer.find_line(Seq(1))
    writer.roll_if_due()
    assert not old.exists()
    writer.close()


def test_free_space_is_reported(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    assert 0 < writer.stats.read_volume_bytes()[0] <= writer.stats.read_volume_bytes()[1]
    writer.close()
