"""A writer's permission to change its archive: the lock, and earlier failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.archive.fsync import translate_full_volume
from busyapi.archive.lock import FolderLock
from busyapi.archive.segment import Segment
from busyapi.errors import ArchiveError, ArchiveTakenOver, FsyncFailed


class WriteAccess:
    """One writer's access to the folder of a partition."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        """Take over a lock that the caller holds."""
        self.is_held = True
        self._folder = folder
        self._lock = lock
        self._failure = ""
        self._takeover = ""

    @property
    def is_usable(self) -> bool:
        """Return whether the folder is locked, and no failure or takeover was detected."""
        return self.is_held and not self._failure and not self._takeover

    def require_usable(self) -> None:
        """Check that the archive was not closed, has not failed and was not taken over.

        Raises:
            FsyncFailed, ArchiveTakenOver: an earlier change failed in this way.
            ArchiveError: the archive was closed.
        """
        if self._failure:
            raise FsyncFailed(self._failure)
        if self._takeover:
            raise ArchiveTakenOver(self._takeover)
        if not self.is_held:
            raise ArchiveError("the archive was closed")

    def check_ownership(self, segment: Segment | None) -> None:
        """Check that lock and open segment are still the files at their paths.

        Raises:
            ArchiveTakenOver: one of them is not. The archive is not changed after that.
        """
        self.require_usable()
        try:
            self._lock.check_held()
            if segment:
                segment.check_ownership()
        except (ArchiveTakenOver, OSError) as error:
            self._takeover = str(error)
            raise

    @contextmanager
    def guard_change(self, segment: Segment | None) -> Iterator[None]:
        """Translate the errors of a change; refuse later ones if it leaves the disk unknown."""
        self.check_ownership(segment)
        try:
            with translate_full_volume(self._folder):
                yield
        except ArchiveTakenOver as error:
            self._takeover = str(error)
            raise
        except (FsyncFailed, OSError) as error:
            self._failure = f"an earlier failure: {error}"
            raise

    def release(self) -> None:
        """Release the folder for other processes."""
        self.is_held = False
        self._lock.release()
