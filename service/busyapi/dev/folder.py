"""The state folder: its contents, and who may use it.

dev.lock        held by the one `busyapi dev` that runs here
archive-secret  what API processes send to flushers
children.lock   held by it and, inherited, by every child: as long as one of them lives a new start
                must wait, because two Valkeys would write one append-only file
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.errors import BusyapiError

ORPHAN_SECONDS = 30.0
"""The kernel kills the children of a killed parent, or signals them to finish their work."""


class StateInUse(BusyapiError):
    """The state folder is used by another busyapi dev."""


class StateFolder:
    """A state folder, locked for this process."""

    def __init__(self, path: Path, children_lock: int) -> None:
        self.path = path
        self.children_lock = children_lock
        """Children inherit this descriptor and never use it."""
        self._pids: dict[str, int] = {}
        for folder in (self.archive, self.valkey, self.logs):
            # The state folder may have existed before, readable by others.
            folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def archive(self) -> Path:
        """Return the folder that flushers write to."""
        return self.path / "archive"

    @property
    def valkey(self) -> Path:
        """Return the folder of Valkey's append-only file."""
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        """Return the folder with a log for each process."""
        return self.path / "log"

    def rotate_log(self, name: str) -> Path:
        """Return the path of a process's log; the log of the run before is kept as `.log.1`."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        return log

    @staticmethod
    def ensure_secret(path: Path) -> None:
        """Create the secret that API processes and flushers share, in the first run."""
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            temporary.rename(path)

    def record(self, name: str, pid: int) -> None:
        """Record the pid of a child, for a start that finds it left over."""
        self._pids[name] = pid
        # Of a fixed width: a line overwrites a line, so a reader never sees half of one.
        text = "".join(f"{child} {pid:<10}\n" for child, pid in self._pids.items())
        os.pwrite(self.children_lock, text.encode(), 0)


@contextmanager
def lock_state_folder(path: Path, say: Callable[[str], None]) -> Iterator[StateFolder]:
    """Lock a folder for this process; wait for processes that a killed run left behind.

    Raises:
        StateInUse: another `busyapi dev` uses it, or such processes do not end.
    """
    # It holds personal data of patients: only its owner may read it.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open(path / "dev.lock") as dev_lock, _open(path / "children.lock") as children_lock:
        if not _lock(dev_lock):
            raise StateInUse(
                f"{path} is used by another busyapi dev, process {_content(dev_lock)}."
                " Stop that one, or choose another folder with --state"
            )
        os.ftruncate(dev_lock, 0)
        os.pwrite(dev_lock, str(os.getpid()).encode(), 0)
        _wait_for_orphans(path, children_lock, say)
        os.ftruncate(children_lock, 0)
        yield StateFolder(path, children_lock)


def _wait_for_orphans(path: Path, lock: int, say: Callable[[str], None]) -> None:
    end = time.monotonic() + ORPHAN_SECONDS
    is_reported = False
    while not _lock(lock):
        orphans = ", ".join(line.strip() for line in _content(lock).splitlines())
        if time.monotonic() > end:
            raise StateInUse(
                f"{path} is still used by processes of an earlier run that do not end: {orphans}."
                " Look at them with ps, and kill them by their pids"
            )
        if not is_reported:
            say(f"waiting for processes of an earlier run to end: {orphans}")
            is_reported = True
        time.sleep(0.1)


@contextmanager
def _open(path: Path) -> Iterator[int]:
    # Never deleted: a lock on a deleted file excludes no other process.
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
