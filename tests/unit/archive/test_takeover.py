"""Two processes with one archive: the lock is void, and each other guard has to hold alone."""

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
)

CHANGES: dict[str, Callable[[PartitionWriter], object]] = {
    "check_ours": lambda writer: writer.check_ownership(),
    "append": lambda writer: writer.append([make_batch(writer.cursor + 1)]),
    "roll_if_due": lambda writer: writer.roll_if_due(),
    "gap": lambda writer: writer.record_gap(Seq(writer.cursor + 5), "why"),
    "quarantine": lambda writer: writer.quarantine(
        Seq(writer.cursor + 1), Seq(writer.cursor + 1), b"raw", "why"
    ),
    "mark": lambda writer: writer.mark_identity(seeded=True),
}


def no_flock(_fd: int, _operation: int) -> None:
    """Answer as a file system without flock does."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_an_untouched_archive_is_ours(tmp_path: Path) -> None:
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
        patched.setattr(fcntl, "flock", no_flock)
        frozen = recover_writer(tmp_path)
        frozen.append([make_batch(1, 3)])
        newcomer = recover_writer(tmp_path)
    newcomer.append([make_batch(4)])
    before = list_file_names(tmp_path)
    for _ in range(2):
        with pytest.raises(ArchiveTakenOver):
            CHANGES[change](frozen)
    frozen.close()
    assert list_file_names(tmp_path) == before
    newcomer.append([make_batch(5)])
    newcomer.close()
    assert read_ids(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_owner_whose_lock_file_is_gone_changes_nothing(
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
    again = recover_writer(tmp_path)
    assert again.cursor == 1
    again.append([make_batch(2)])
    again.check_ownership()
    again.close()
    assert read_ids(tmp_path) == [1, 2]


def test_an_open_segment_of_the_newcomer_at_the_same_path_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both open a segment at the same seq: neither renames or removes the other's file."""
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_flock)
        frozen = recover_writer(tmp_path)
        frozen.append([make_batch(1)])
        newcomer = recover_writer(tmp_path)
    newcomer.close()
    newcomer = recover_writer(tmp_path)
    (finished,) = tmp_path.rglob("*.ndjson.zst")
    finished.rename(finished.with_name("usages-p00-0000000000000001.ndjson.zst.open"))
    with pytest.raises(ArchiveTakenOver):
        frozen.roll_if_due()
    frozen.close()
    assert list_file_names(tmp_path) == ["usages-p00-0000000000000001.ndjson.zst.open"]
    with pytest.raises(ArchiveTakenOver, match="made by another process"):
        newcomer._begin_segment(Seq(1))
    abandon_writer(newcomer)


def test_close_without_finishing_leaves_the_open_segment_for_recovery(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 2)])
    writer.close(finish=False)
    assert list_file_names(tmp_path) == ["usages-p00-0000000000000001.ndjson.zst.open"]
    again = recover_writer(tmp_path)
    assert again.cursor == 2
    again.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_flock_the_writer_continues_and_says_what_still_guards(
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


def test_with_flock_there_is_nothing_to_say(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    assert writer.notices == []
    writer.close()


def test_a_failing_lock_is_no_missing_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        recover_writer(tmp_path)


def test_a_lock_file_removed_while_it_is_taken_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between open and flock the file is replaced: the lock of the old file guards nothing."""
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
    code = "import sys; from testkit.archive.builder import recover; recover(sys.argv[1])"
    code = code.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "ArchiveLocked" in done.stderr
    writer.close()
