import errno
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from busyapi import failpoints
from busyapi.archive import fsync, index_file, segment
from busyapi.archive.format import UsageBatch
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveError, ArchiveFull, FsyncFailed
from busyapi.ids import Seq
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    find_open_segment,
    find_segments,
    join_usages,
    list_file_names,
    make_batch,
    make_usage,
    read_ids,
    recover_writer,
)
from testkit.volume import mount_small_volume


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[PartitionWriter]:
    partition_writer = recover_writer(tmp_path)
    yield partition_writer
    abandon_writer(partition_writer)


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Make a failpoint fail with an errno at every hit."""
    actions = {name: failpoints._Action("eio" if number == errno.EIO else "enospc", 0, 0)}
    for module in (fsync, index_file, segment):
        monkeypatch.setattr(module, "failpoint", failpoints.make_failpoint(actions))


def test_an_append_moves_the_cursor_and_returns_its_stats(writer: PartitionWriter) -> None:
    stats = writer.append([make_batch(1, 3), make_batch(4, 2)])
    assert (writer.cursor, writer.stats.highest_seq, writer.stats.skipped_seqs) == (5, 5, 0)
    assert stats.usages == 5
    assert stats.raw_bytes == sum(len(writer.find_line(Seq(n)) or b"") + 1 for n in range(1, 6))
    assert stats.bytes == writer.stats.open_bytes
    assert stats.write_seconds > 0
    assert stats.sync_seconds >= 0


def test_appended_usages_are_read_back_by_another_reader(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    for first in range(1, 100, 3):
        writer.append([make_batch(first), make_batch(first + 1, 2)])
    assert read_ids(tmp_path) == list(range(1, 100))
    writer.close()
    assert read_ids(tmp_path) == list(range(1, 100))


@pytest.mark.parametrize(
    "batches",
    [
        [make_batch(1)],
        [make_batch(4)],
        [make_batch(3), make_batch(5)],
        [make_batch(3), make_batch(3)],
        [UsageBatch(Seq(3), Seq(4), RECEIVED_MS, make_usage(3))],
        [make_batch(3, 2)._replace(last=Seq(3))],
        [UsageBatch(Seq(3), Seq(2), RECEIVED_MS, b"")],
        [UsageBatch(Seq(3), Seq(3), RECEIVED_MS, b'{"a":\n1}')],
        [UsageBatch(Seq(3), Seq(3), -1, make_usage(3))],
        [UsageBatch(Seq(3), Seq(3), 10**18, make_usage(3))],
    ],
    ids=[
        *("again", "hole", "hole within", "twice within", "too few", "too many", "none"),
        *("newline", "before 1970", "far"),
    ],
)
def test_batches_that_do_not_follow_or_fit_are_refused(
    writer: PartitionWriter, batches: list[UsageBatch]
) -> None:
    writer.append([make_batch(1, 2)])
    size = writer.stats.open_bytes
    with pytest.raises(ValueError, match="seq"):
        writer.append(batches)
    assert (writer.cursor, writer.stats.open_bytes) == (2, size)
    writer.append([make_batch(3)])
    assert writer.cursor == 3


def test_a_message_about_a_refused_batch_holds_no_usage(writer: PartitionWriter) -> None:
    with pytest.raises(ValueError, match="seq") as caught:
        writer.append([UsageBatch(Seq(1), Seq(1), RECEIVED_MS, b'{"patientId":"secret"\n}')])
    assert "secret" not in str(caught.value)


def test_nothing_is_readable_before_it_is_synced(
    writer: PartitionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append([make_batch(1)])
    seen: list[tuple[int, bytes | None]] = []
    sync = os.fdatasync

    def read_then_sync(fd: int) -> None:
        seen.append((writer.cursor, writer.find_line(Seq(2))))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", read_then_sync)
    writer.append([make_batch(2)])
    assert seen == [(1, None)]
    assert writer.find_line(Seq(2)) is not None


@pytest.mark.formats(1, 2)
def test_every_change_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive_format: int
) -> None:
    """Compare the order of system calls with the one that survives a power cut."""
    calls: list[str] = []

    def record(verb: str, call: Any, name_of: Any) -> Any:
        def record_and_call(*args: Any, **kwargs: Any) -> Any:
            calls.append(f"{verb} {name_of(*args)}")
            return call(*args, **kwargs)

        return record_and_call

    def by_fd(fd: int, *_: object) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name.removesuffix(".tmp")

    writer = recover_writer(tmp_path)
    monkeypatch.setattr(os, "pwrite", record("write", os.pwrite, by_fd))
    monkeypatch.setattr(os, "fdatasync", record("sync", os.fdatasync, by_fd))
    monkeypatch.setattr(os, "fsync", record("sync", os.fsync, by_fd))
    monkeypatch.setattr(Path, "rename", record("rename to", Path.rename, lambda _, new: new.name))
    writer.append([make_batch(1)])
    writer.append([make_batch(2)])
    writer.record_gap(Seq(3), "why")
    day = next(tmp_path.glob("p00/*-*")).name
    name = "usages-p00-0000000000000001-0000000000000002"
    open_name = "usages-p00-0000000000000001-open.ndjson.zst"
    finish = [f"write _{name}.index", f"sync _{name}.index", f"rename to _{name}.index"]
    if archive_format == 1:
        open_name = "usages-p00-0000000000000001.ndjson.zst.open"
        finish = [f"write {open_name}", f"sync {open_name}"]  # the footer
    gap = "gap-p00-0000000000000003-0000000000000003.json"
    assert calls == [
        "sync p00",  # the day's folder exists
        f"sync {day}",  # the file exists
        f"write {open_name}",
        f"sync {open_name}",
        "write highwater",  # never before the sync, and without a sync of its own
        f"write {open_name}",
        f"sync {open_name}",
        "write highwater",
        *finish,
        f"rename to {name}.ndjson.zst",
        f"sync {day}",
        "sync highwater",
        "sync p00",
        f"write {gap}",
        f"sync {gap}",
        f"rename to {gap}",
        f"sync {day}",
        "write highwater",
        "sync highwater",
    ]
    abandon_writer(writer)


@pytest.mark.parametrize("failpoint", ["archive-sync", "archive-sync-folder"])
def test_after_a_failed_sync_the_writer_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failpoint: str
) -> None:
    writer = recover_writer(tmp_path)
    if failpoint == "archive-sync":
        writer.append([make_batch(1)])
    cursor = writer.cursor
    with monkeypatch.context() as patched:
        fail_at(patched, failpoint, errno.EIO)
        with pytest.raises(FsyncFailed):
            writer.append([make_batch(cursor + 1)])
    assert writer.cursor == cursor
    before = list_file_names(tmp_path)
    for call in (
        lambda: writer.append([make_batch(cursor + 1)]),
        lambda: writer.record_gap(Seq(9), "why"),
        lambda: writer.quarantine(Seq(cursor + 1), Seq(cursor + 1), b"", "why"),
        writer.roll_if_due,
        lambda: writer.find_line(Seq(1)),
    ):
        with pytest.raises(FsyncFailed):
            call()
    writer.close()
    assert list_file_names(tmp_path) == before, "close() must not write to the file either"
    next_writer = recover_writer(tmp_path)
    assert next_writer.cursor in {cursor, cursor + 1}
    assert read_ids(tmp_path) == list(range(1, next_writer.cursor + 1))
    next_writer.close()


def test_a_write_that_fails_midway_is_cut_off_and_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1)])
    size = writer.stats.open_bytes
    pwrite = os.pwrite

    def write_part(fd: int, data: bytes, offset: int) -> int:
        if offset > size:
            raise OSError(errno.EDQUOT, "quota")
        return pwrite(fd, bytes(data)[:10], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", write_part)
        for _ in range(2):
            with pytest.raises(ArchiveFull):
                writer.append([make_batch(2, 5)])
            assert find_open_segment(tmp_path).stat().st_size == size
    assert writer.find_line(Seq(1)) is not None
    writer.append([make_batch(2, 5)])
    writer.close()
    assert read_ids(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_write_that_cannot_be_cut_off_stops_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1)])

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patched:
        fail_at(patched, "archive-write", errno.ENOSPC)
        patched.setattr(os, "ftruncate", refuse)
        with pytest.raises(FsyncFailed):
            writer.append([make_batch(2)])
    with pytest.raises(FsyncFailed):
        writer.append([make_batch(2)])
    writer.close()


CHANGES: dict[str, Callable[[PartitionWriter], object]] = {
    "roll": lambda writer: writer.roll_if_due(),
    "gap": lambda writer: writer.record_gap(Seq(20), "why"),
    "quarantine": lambda writer: writer.quarantine(
        Seq(writer.cursor + 1), Seq(writer.cursor + 1), b"raw", "why"
    ),
}


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "failpoint", ["archive-write", "archive-before-rename", "archive-write-small"]
)
def test_a_full_volume_refuses_a_change_and_accepts_it_later(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    archive_format: int,
    failpoint: str,
    change: str,
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.append([make_batch(1, 9)])
    if (failpoint, archive_format) == ("archive-write", 2):
        failpoint = "archive-write-index"
    if failpoint == "archive-write-small":
        writer.roll_if_due()
    with monkeypatch.context() as patched:
        fail_at(patched, failpoint, errno.ENOSPC)
        if (failpoint, change) != ("archive-write-small", "roll"):
            for _ in range(2):
                with pytest.raises(ArchiveFull):
                    CHANGES[change](writer)
    assert writer.cursor == 9
    assert not list(tmp_path.rglob("*.json.tmp"))
    # This block is shorter than the footer that was cut off.
    writer.append([make_batch(10)])
    CHANGES[change](writer)
    end = writer.cursor
    abandon_writer(writer)
    writer = recover_writer(tmp_path)
    assert (writer.cursor, writer.damage_reports) == (end, [])
    writer.close()
    assert read_ids(tmp_path) == list(range(1, 11))


@pytest.mark.servers
def test_a_volume_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    with mount_small_volume(tmp_path, "256k"):
        writer = recover_writer(tmp_path, segment_bytes=20_000)
        ballast = tmp_path / "ballast"
        ballast.write_bytes(b"x" * 95_000)
        refusals = 0
        while refusals < 3:
            noise = [b'{"timestamp":%d,"n":"%b"}' % (seq, os.urandom(400).hex().encode())
                     for seq in range(writer.cursor + 1, writer.cursor + 11)]  # fmt: skip
            try:
                writer.append([join_usages(writer.cursor + 1, noise)])
                writer.roll_if_due()
            except ArchiveFull:
                refusals += 1
        cursor = writer.cursor
        assert cursor > 10
        abandon_writer(writer)
        with pytest.raises(ArchiveFull):  # recovery has no space either
            recover_writer(tmp_path)
        assert not list(tmp_path.rglob("*.tmp"))
        assert read_ids(tmp_path) == list(range(1, cursor + 1))
        ballast.unlink()
        writer = recover_writer(tmp_path)
        assert (writer.cursor, writer.damage_reports) == (cursor, [])
        writer.append([make_batch(cursor + 1)])
        writer.close()
        assert read_ids(tmp_path) == list(range(1, cursor + 2))


def test_a_file_size_limit_is_an_error_that_a_new_recovery_survives(tmp_path: Path) -> None:
    """The writer stops after any other failed write: it could keep no guarantee."""
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.stats.open_bytes + 20, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            writer.append([make_batch(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    with pytest.raises(FsyncFailed):
        writer.append([make_batch(2)])
    writer.close()
    next_writer = recover_writer(tmp_path)
    next_writer.append([make_batch(2)])
    next_writer.close()
    assert read_ids(tmp_path) == [1, 2]


def test_close_finishes_the_segment_and_nothing_works_after_it(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1)])
    writer.close()
    writer.close()
    assert len(find_segments(tmp_path)) == 1
    with pytest.raises(ArchiveError, match="closed"):
        writer.append([make_batch(2)])


def test_a_reader_sees_every_line_while_segments_come_and_go(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, segment_bytes=2000)
    missing: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seq = writer.cursor
            if seq and writer.find_line(Seq(seq)) is None:
                missing.append(seq)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(400):
        writer.append([make_batch(writer.cursor + 1, 3)])
        writer.roll_if_due()
    stop.set()
    reader.join()
    assert writer.stats.finished_segments > 5
    assert not missing
    writer.close()
