"""The state folder: what is in it, and who may use it.

dev.lock        held by the one `busyapi dev` that runs here
children.lock   held by it and, inherited, by every child: as long as one of them lives, a new
                start must wait, because two Valkeys would write one append-only file
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.errors import BusyapiError

ORPHAN_SECONDS = 30.0
"""Children of a killed parent are ended by the kernel, or told to finish what they accepted."""


class StateInUse(BusyapiError):
    """The state folder is used by another busyapi dev."""


class StateFolder:
    """A state folder that this process has for itself."""

    def __init__(self, path: Path, children_lock: int) -> None:
        self.path = path
        self.children_lock = children_lock
        """Children inherit this descriptor; they never use it."""
        self._pids: dict[str, int] = {}
        for each in (self.archive, self.valkey, self.logs):
            # The folder may have been there before, and open to others.
            each.mkdir(mode=0o700, exist_ok=True)

    @property
    def archive(self) -> Path:
        """Where the flushers write."""
        return self.path / "archive"

    @property
    def valkey(self) -> Path:
        """Where Valkey has its append-only file."""
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        """A log for each process."""
        return self.path / "log"

    def fresh_log(self, name: str) -> Path:
        """Give the log of a process, empty; that of the run before is kept beside it."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        return log

    def record(self, name: str, pid: int) -> None:
        """Write down which processes there are, for who finds them left over."""
        self._pids[name] = pid
        # Of one width, so that a line is written over by its like and a reader never sees half.
        text = "".join(f"{each} {pid:<10}\n" for each, pid in self._pids.items())
        os.pwrite(self.children_lock, text.encode(), 0)


@contextmanager
def take(path: Path, say: Callable[[str], None]) -> Iterator[StateFolder]:
    """Take a folder for this process; wait for processes that a killed run left behind.

    Raises:
        StateInUse: another `busyapi dev` has it, or such processes do not end.
    """
    # What devices send is personal: the folder is its owner's alone.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(path / "dev.lock") as ours, _opened(path / "children.lock") as theirs:
        if not _lock(ours):
            raise StateInUse(
                f"{path} is used by another busyapi dev, process {_content(ours)}:"
                " stop it, or name another folder by --state"
            )
        os.ftruncate(ours, 0)
        os.pwrite(ours, str(os.getpid()).encode(), 0)
        _wait_for_orphans(path, theirs, say)
        os.ftruncate(theirs, 0)
        yield StateFolder(path, theirs)


def _wait_for_orphans(path: Path, lock: int, say: Callable[[str], None]) -> None:
    end = time.monotonic() + ORPHAN_SECONDS
    told = False
    while not _lock(lock):
        left = ", ".join(each.strip() for each in _content(lock).splitlines())
        if time.monotonic() > end:
            raise StateInUse(
                f"{path} is still used by processes of an earlier run that do not end."
                f" They were: {left}"
            )
        if not told:
            say(f"waiting for processes of an earlier run to end: {left}")
            told = True
        time.sleep(0.1)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # Never deleted: who locks a deleted file shares it with nobody.
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(fd: int) -> str:
    return os.pread(fd, 4096, 0).decode(errors="replace").strip() or "unknown"
