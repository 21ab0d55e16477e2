"""Whether a writer may still change its archive: its lock, and what went wrong before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.archive.fsync import translate_full_volume
from busyapi.archive.lock import FolderLock
from busyapi.archive.segment import Segment
from busyapi.errors import ArchiveError, ArchiveTakenOver, FsyncFailed


class WriteAccess:
    """One writer's hold on the folder of a partition."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        """Take over a lock that is held."""
        self.is_held = True
        self._folder = folder
        self._lock = lock
        self._failure = ""
        self._takeover = ""

    @property
    def is_usable(self) -> bool:
        """Whether the archive may be changed, as far as it is known."""
        return self.is_held and not self._failure and not self._takeover

    def require_usable(self) -> None:
        """Refuse to use an archive that was closed, or that failed.

        Raises:
            ArchiveError: one of FsyncFailed, ArchiveTakenOver, or it was closed.
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
            ArchiveTakenOver: one is not; nothing is changed after that.
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
        """Translate errors. After one that leaves the disk unknown, nothing is changed any more."""
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
        """Let another process take the folder."""
        self.is_held = False
        self._lock.release()
