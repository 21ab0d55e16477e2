"""Two processes with one archive: without the lock, each other guard must suffice alone."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveLocked, ArchiveTakenOver
from busyapi.ids import Seq
from testkit.archive.builder import (
    abandon_writer,
    list_file_names,
    make_batch,
    read_ids,
    recover_writer,
    refuse_flock,
)

CHANGES: dict[str, Callable[[PartitionWriter], object]] = {
    "check_ownership": lambda writer: writer.check_ownership(),
    "append": lambda writer: writer.append([make_batch(writer.cursor + 1)]),
    "roll_if_due": lambda writer: writer.roll_if_due(),
    "gap": lambda writer: writer.record_gap(Seq(writer.cursor + 5), "why"),
    "quarantine": lambda writer: writer.quarantine(
        Seq(writer.cursor + 1), Seq(writer.cursor + 1), b"raw", "why"
    ),
    "mark": lambda writer: writer.update_identity(is_seeded=True),
}


def test_the_owner_check_passes_on_an_untouched_archive(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    writer.check_ownership()
    for _ in range(3):
        writer.append([make_batch(writer.cursor + 1)])
        writer.check_ownership()
        writer.roll_if_due()
        writer.check_ownership()
    writer.close()


@pytest.mark.parametrize("change", CHANGES)
def test_an_owner_whose_open_segment_was_recovered_by_another_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse_flock)
        old_writer = recover_writer(tmp_path)
        old_writer.append([make_batch(1, 3)])
        new_writer = recover_writer(tmp_path)
    new_writer.append([make_batch(4)])
    before = list_file_names(tmp_path)
    for _ in range(2):
        with pytest.raises(ArchiveTakenOver):
            CHANGES[change](old_writer)
    old_writer.close()
    assert list_file_names(tmp_path) == before
    new_writer.append([make_batch(5)])
    new_writer.close()
    assert read_ids(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_owner_whose_lock_file_was_removed_changes_nothing(
    tmp_path: Path, change: str, *, replaced: bool
) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1)])
    lock = tmp_path / "p00" / ".lock"
    lock.unlink()
    if replaced:
        lock.touch()
    with pytest.raises(ArchiveTakenOver, match=r"\.lock was removed or replaced"):
        CHANGES[change](writer)
    writer.close()
    next_writer = recover_writer(tmp_path)
    assert next_writer.cursor == 1
    next_writer.append([make_batch(2)])
    next_writer.check_ownership()
    next_writer.close()
    assert read_ids(tmp_path) == [1, 2]


def test_an_open_segment_of_the_new_writer_at_the_same_path_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both open a segment at the same seq: neither renames or removes the other's file."""
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse_flock)
        old_writer = recover_writer(tmp_path)
        old_writer.append([make_batch(1)])
        new_writer = recover_writer(tmp_path)
    new_writer.close()
    new_writer = recover_writer(tmp_path)
    (finished,) = tmp_path.rglob("*.ndjson.zst")
    finished.rename(finished.with_name("usages-p00-0000000000000001-open.ndjson.zst"))
    with pytest.raises(ArchiveTakenOver):
        old_writer.roll_if_due()
    old_writer.close()
    assert list_file_names(tmp_path) == ["usages-p00-0000000000000001-open.ndjson.zst"]
    with pytest.raises(ArchiveTakenOver, match="made by another process"):
        new_writer._begin_segment(Seq(1))
    abandon_writer(new_writer)


def test_close_without_finishing_leaves_the_open_segment_for_recovery(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 2)])
    writer.close(finish=False)
    assert list_file_names(tmp_path) == ["usages-p00-0000000000000001-open.ndjson.zst"]
    next_writer = recover_writer(tmp_path)
    assert next_writer.cursor == 2
    next_writer.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_flock_the_writer_continues_and_adds_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    writer = recover_writer(tmp_path)
    (notice,) = writer.notices
    assert "cannot be locked" in notice
    assert os.strerror(number) in notice
    writer.append([make_batch(1)])
    writer.check_ownership()
    writer.close()


def test_with_flock_there_is_no_notice(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    assert writer.notices == []
    writer.close()


def test_an_input_output_error_of_flock_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        recover_writer(tmp_path)


def test_a_lock_file_replaced_while_it_is_locked_is_locked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced between open and flock: the lock of the old file guards nothing."""
    recover_writer(tmp_path).close()
    path = tmp_path / "p00" / ".lock"
    flock = fcntl.flock
    calls: list[int] = []

    def replace_first(fd: int, operation: int) -> None:
        if not calls:
            path.unlink()
        calls.append(fd)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    writer = recover_writer(tmp_path)
    assert len(calls) == 2
    with pytest.raises(ArchiveLocked):
        recover_writer(tmp_path)
    writer.close()


def test_two_processes_cannot_both_hold_the_lock(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    code = "import sys; from testkit.archive.builder import recover_writer, Path"
    code += "; recover_writer(Path(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "ArchiveLocked" in result.stderr
    writer.close()
