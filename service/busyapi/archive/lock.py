"""The lock of a partition's folder: only one process writes at a time.

`flock` on `.lock` works only while the path leads to the locked file. An operator, or a tool that
restores a backup, can remove or replace the file, and some network file systems have no flock. So
two more checks exist, and none relies on another: the lease in Redis, and, before each publish, the
check that the writer's open segment is still the file at its path.
"""

import errno
import fcntl
import os
from pathlib import Path

from busyapi.archive import paths
from busyapi.errors import ArchiveLocked, ArchiveTakenOver

_NO_FLOCK = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""Errors of file systems without flock."""
_MAX_TRIES = 10


class FolderLock:
    """The lock of one folder, held until `release`."""

    def __init__(self, folder: Path) -> None:
        """Acquire the lock.

        Raises:
            ArchiveLocked: another process holds it.
        """
        self.path = folder / paths.LOCK_NAME
        self.warning = ""
        """Why this lock does not exclude other processes; empty if it does."""
        self._fd: int | None = None
        self._fd = self._acquire()

    def __del__(self) -> None:
        """Release a lock that the program forgot. Only a process that dies may leave it held."""
        self.release()

    def check_held(self) -> None:
        """Check that the path still leads to the file that is locked.

        Raises:
            ArchiveTakenOver: the file was removed or replaced, so another process can lock the new
                file.
        """
        if self._fd is None or not is_same_file(self._fd, self.path):
            raise ArchiveTakenOver(f"{self.path} was removed or replaced while it was locked")

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _acquire(self) -> int:
        for _ in range(_MAX_TRIES):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o640)
            try:
                self._flock(fd)
                # If it was removed between open and flock, another process may hold the next file.
                if is_same_file(fd, self.path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise ArchiveLocked(f"{self.path} is replaced again and again")

    def _flock(self, fd: int) -> None:
        try:
            reason = try_flock(fd)
        except BlockingIOError:
            raise ArchiveLocked(f"another process writes {self.path.parent}") from None
        if reason:
            self.warning = (
                f"{self.path} cannot be locked: {reason}; only the lease in Redis and the check of"
                " the open segment keep a second flusher out"
            )


def try_flock(fd: int) -> str:
    """Lock a file without waiting; return why its file system has no flock, or "".

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the disk does not answer.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return os.strerror(error.errno or 0)
    return ""


def lock_exclusively(folder: Path) -> FolderLock:
    """Acquire the lock of a folder, for work that a flusher must not see.

    Raises:
        ArchiveLocked: another process holds it, or perhaps does: the file system has no flock.
    """
    lock = FolderLock(folder)
    if lock.warning:
        lock.release()
        raise ArchiveLocked(f"{lock.path} is on a file system without flock")
    return lock


def is_same_file(fd: int, path: Path) -> bool:
    """Return whether a path leads to the open file.

    The path is opened, not only looked up: an NFS client may answer a lookup from its cache for a
    minute, but asks the server when it opens a file.
    """
    try:
        at_path = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(fd), os.fstat(at_path))
    finally:
        os.close(at_path)
