"""Retention deletes only if two clocks agree, and never stops archiving."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from busyapi.archive import retention
from busyapi.archive.paths import utc_day
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import FsyncFailed, UsageExpired
from busyapi.ids import Seq
from testkit.archive.builder import (
    DAY_MS,
    abandon_writer,
    find_segments,
    make_batch,
    now_ms,
    read_ids,
    recover_writer,
)

FAR_DAYS = 400


def make_old_segments(root: Path, count: int = 3, *, days: int = 30) -> list[Path]:
    """Make finished segments of one usage each, received and opened some days ago."""
    writer = recover_writer(root, segment_bytes=1)
    for _ in range(count):
        writer.append([make_batch(writer.cursor + 1, received_ms=now_ms() - days * DAY_MS)])
        writer.roll_if_due()
    writer.close()
    for folder in root.glob(f"p00/{utc_day()}"):
        folder.rename(folder.with_name(utc_day(time.time() - days * 86_400)))
    return find_segments(root)


def append_usage(writer: PartitionWriter, *, off_days: float = 0) -> None:
    """Append a usage with a receivedAt that is off by some days."""
    at = round(now_ms() + off_days * DAY_MS)
    writer.append([make_batch(writer.cursor + 1, received_ms=at)])


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that makes this process's clock wrong by some days."""
    real = time.time, time.gmtime

    def step(days: float) -> None:
        def now() -> float:
            return real[0]() + days * 86_400

        monkeypatch.setattr(time, "time", now)
        monkeypatch.setattr(time, "gmtime", lambda s=None: real[1](now() if s is None else s))

    return step


def test_old_segments_are_deleted_when_both_clocks_agree(tmp_path: Path) -> None:
    """This is the control: the tests below use the same files."""
    make_old_segments(tmp_path)
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer)
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.retention_refusal) == (4, "")
    writer.close()
    assert read_ids(tmp_path) == [4]


@pytest.mark.parametrize("days", [FAR_DAYS, -FAR_DAYS, 3, -3])
def test_a_wrong_clock_of_the_flusher_deletes_nothing(
    tmp_path: Path, set_clock: Callable[[float], None], days: int
) -> None:
    make_old_segments(tmp_path)
    writer = recover_writer(tmp_path, segment_bytes=1, retention_days=5)
    at = now_ms()
    set_clock(days)
    for _ in range(3):
        writer.append([make_batch(writer.cursor + 1, received_ms=at)])
        writer.roll_if_due()
    assert writer.identity.kept_from == 1
    assert "this machine's clock says" in writer.retention_refusal
    set_clock(0)
    writer.append([make_batch(writer.cursor + 1, received_ms=at)])
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.retention_refusal) == (4, "")
    writer.close()
    assert sorted(read_ids(tmp_path)) == [4, 5, 6, 7], (
        "usages filed by a wrong clock are kept by their receivedAt"
    )


@pytest.mark.parametrize("days", [FAR_DAYS, -FAR_DAYS])
def test_a_wrong_clock_of_the_api_deletes_nothing(tmp_path: Path, days: int) -> None:
    make_old_segments(tmp_path)
    writer = recover_writer(tmp_path, segment_bytes=1, retention_days=5)
    for _ in range(3):
        append_usage(writer, off_days=days)
        writer.roll_if_due()
    assert writer.identity.kept_from == 1
    assert writer.retention_refusal
    append_usage(writer)
    writer.roll_if_due()
    assert writer.identity.kept_from == 4
    writer.close()
    assert read_ids(tmp_path) == [4, 5, 6, 7], "filed today, whatever their receivedAt"


@pytest.mark.parametrize("off", [-1.9, 0, 1.9])
def test_retention_counts_from_the_older_of_the_two_clocks(tmp_path: Path, off: float) -> None:
    make_old_segments(tmp_path, 1, days=9)
    make_old_segments(tmp_path, 1, days=6)
    make_old_segments(tmp_path, 1, days=4)
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer, off_days=off)
    writer.roll_if_due()
    # Seen from 1.9 days ago, six days ago is between four and five days ago.
    assert writer.identity.kept_from == (2 if off < 0 else 3)
    writer.close()


def test_an_idle_service_waits_for_the_next_usage(tmp_path: Path) -> None:
    make_old_segments(tmp_path)
    writer = recover_writer(tmp_path, retention_days=5)
    writer.roll_if_due()
    assert len(find_segments(tmp_path)) == 3
    assert "If no usage came for more than two days" in writer.retention_refusal
    append_usage(writer)
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.retention_refusal) == (4, "")
    writer.close()


def test_an_idle_service_with_nothing_old_reports_no_refusal(tmp_path: Path) -> None:
    make_old_segments(tmp_path, days=4)
    writer = recover_writer(tmp_path, retention_days=5)
    writer.roll_if_due()
    assert writer.retention_refusal == ""
    writer.close()


def test_the_newest_segment_is_never_deleted(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """Both clocks are wrong in the same way: the API's pod is on the flusher's node."""
    make_old_segments(tmp_path, 2, days=0)
    set_clock(FAR_DAYS)
    writer = recover_writer(tmp_path, segment_bytes=1, retention_days=5)
    append_usage(writer)
    writer.roll_if_due()
    writer.roll_if_due()
    writer.close()
    for _ in range(2):
        writer = recover_writer(tmp_path, retention_days=5)
        set_clock(2 * FAR_DAYS)
        writer.roll_if_due()
        writer.close()
    assert max(read_ids(tmp_path)) == 3


def test_a_segment_with_a_usage_of_the_future_is_kept_and_named(tmp_path: Path) -> None:
    make_old_segments(tmp_path, 1)
    make_old_segments(tmp_path, 1, days=-FAR_DAYS)
    (tmp_path / "p00" / utc_day(time.time() + FAR_DAYS * 86_400)).rename(
        tmp_path / "p00" / utc_day(time.time() - 29 * 86_400)
    )
    make_old_segments(tmp_path, 1, days=28)
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer)
    for _ in range(3):
        writer.roll_if_due()
    assert writer.identity.kept_from == 2
    assert "received in the future" in writer.retention_refusal
    assert find_segments(tmp_path)[0].name in writer.retention_refusal
    writer.close()


def test_entries_quarantined_by_a_clock_in_the_past_are_kept(
    tmp_path: Path, set_clock: Callable[[float], None]
) -> None:
    """The day of its folder is the only sign of a quarantine file's age."""
    make_old_segments(tmp_path, 2)
    set_clock(-FAR_DAYS)
    writer = recover_writer(tmp_path, retention_days=5)
    writer.quarantine(Seq(3), Seq(4), b"raw", "why")
    writer.close()
    set_clock(0)
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer)
    writer.roll_if_due()
    assert writer.identity.kept_from == 3
    assert len(list(tmp_path.rglob("quarantine-*"))) == 1
    writer.close()


def test_a_quarantine_file_is_deleted_with_the_segment_behind_it(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.quarantine(Seq(1), Seq(2), b"raw", "why")
    writer.close()
    make_old_segments(tmp_path, 1)
    assert len(list(tmp_path.rglob("quarantine-*"))) == 1
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer)
    writer.roll_if_due()
    assert writer.identity.kept_from == 4
    assert not list(tmp_path.rglob("quarantine-*"))
    writer.close()


def test_segments_filed_by_a_clock_in_the_future_are_deleted_when_usages_are_old(
    tmp_path: Path,
) -> None:
    make_old_segments(tmp_path, 2)
    for folder in (tmp_path / "p00").glob("*-*"):
        folder.rename(folder.with_name(utc_day(time.time() + FAR_DAYS * 86_400)))
    writer = recover_writer(tmp_path, retention_days=5)
    append_usage(writer)
    writer.roll_if_due()
    assert (writer.identity.kept_from, writer.retention_refusal) == (3, "")
    writer.close()
    assert read_ids(tmp_path) == [3]


# --- a failure of retention stops no write --------------------------------------------------


def break_reads(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Fail every read of a file with EIO, as a bad sector does."""
    pread = os.pread

    def fail_read(fd: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink() == path:
            raise OSError(5, "Input/output error")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", fail_read)


def cut_footer(_: pytest.MonkeyPatch, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES = {"eio": break_reads, "footer": cut_footer}


@pytest.mark.parametrize("which", [0, 2], ids=["oldest", "last of the old"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_cannot_be_read_is_named_counted_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, which: int
) -> None:
    paths = make_old_segments(tmp_path, 5)
    bad = paths[which]
    for path in make_old_segments(tmp_path, 4, days=0):
        assert path.exists()
    DAMAGES[how](monkeypatch, bad)
    writer = recover_writer(tmp_path, segment_bytes=1, retention_days=5)
    for _ in range(3):
        append_usage(writer)
        writer.roll_if_due()
    assert writer.cursor == 12
    assert [path for path in paths if path.exists()] == [bad]
    assert (writer.identity.kept_from, writer.stats.damaged_files) == (6, 1)
    (damage,) = writer.damage_reports
    assert bad.name in damage
    with pytest.raises(UsageExpired):
        writer.find_line(Seq(2))
    writer.close()
    # It stays for an operator, even when later starts find it below the floor.
    for _ in range(2):
        writer = recover_writer(tmp_path, retention_days=5)
        append_usage(writer)
        writer.roll_if_due()
        assert (writer.identity.kept_from, writer.stats.damaged_files) == (6, 1)
        writer.close()
    assert bad.exists()


def test_a_file_that_cannot_be_deleted_is_named_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, *others = make_old_segments(tmp_path)
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path == stuck:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    writer = recover_writer(tmp_path, retention_days=5)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        append_usage(writer)
        writer.roll_if_due()
        append_usage(writer)
    assert not any(path.exists() for path in others)
    assert (writer.cursor, writer.identity.kept_from, writer.stats.damaged_files) == (5, 4, 1)
    (damage,) = writer.damage_reports
    assert stuck.name in damage
    monkeypatch.setattr(retention, "RETRY_INTERVAL_SECONDS", 0.0)
    writer._retention._next_try = 0.0
    writer.roll_if_due()
    assert not stuck.exists()
    writer.close()


def test_a_floor_that_cannot_be_written_keeps_files_and_stops_no_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FsyncFailed("fdatasync of partition.json: Input/output error")

    old = make_old_segments(tmp_path)
    writer = recover_writer(tmp_path, retention_days=5)
    with monkeypatch.context() as patched:
        patched.setattr("busyapi.archive.identity.write_small_file", fail)
        for _ in range(3):
            append_usage(writer)
            writer.roll_if_due()
    assert (writer.cursor, writer.identity.kept_from, writer.stats.damaged_files) == (6, 1, 1)
    assert all(path.exists() for path in old)
    (damage,) = writer.damage_reports
    assert "partition.json" in damage
    abandon_writer(writer)
    assert recover_writer(tmp_path).cursor == 6


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bad_sector_in_a_segment_that_recovery_checks_stops_no_archiving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    bad = make_old_segments(tmp_path, days=0)[which]
    with monkeypatch.context() as patched:
        break_reads(patched, bad)
        writer = recover_writer(tmp_path)
        assert (writer.cursor, writer.stats.damaged_files) == (3, 1)
        (damage,) = writer.damage_reports
        assert bad.name in damage
        append_usage(writer)
        writer.close()
    assert read_ids(tmp_path) == [1, 2, 3, 4]
