"""Whether a writer may still change its archive: its lock, and what went wrong before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.archive.durable import full_named
from busyapi.archive.lock import FolderLock
from busyapi.archive.segment import Segment
from busyapi.errors import ArchiveError, ArchiveTaken, SyncFailed


class Holding:
    """One writer's hold on the folder of a partition."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        """Take over a lock that is held."""
        self.held = True
        self._folder = folder
        self._lock = lock
        self._poison = ""
        self._taken = ""

    @property
    def sound(self) -> bool:
        """Whether the archive may be changed, as far as it is known."""
        return self.held and not self._poison and not self._taken

    def require(self) -> None:
        """Refuse to use an archive that was closed, or that failed.

        Raises:
            ArchiveError: one of SyncFailed, ArchiveTaken, or it was closed.
        """
        if self._poison:
            raise SyncFailed(self._poison)
        if self._taken:
            raise ArchiveTaken(self._taken)
        if not self.held:
            raise ArchiveError("the archive was closed")

    def check_ours(self, segment: Segment | None) -> None:
        """Check that lock and open segment are still the files at their paths.

        Raises:
            ArchiveTaken: one is not; nothing is changed after that.
        """
        self.require()
        try:
            self._lock.check()
            if segment:
                segment.check_ours()
        except (ArchiveTaken, OSError) as error:
            self._taken = str(error)
            raise

    @contextmanager
    def changing(self, segment: Segment | None) -> Iterator[None]:
        """Translate errors. After one that leaves the disk unknown, nothing is changed any more."""
        self.check_ours(segment)
        try:
            with full_named(self._folder):
                yield
        except ArchiveTaken as error:
            self._taken = str(error)
            raise
        except (SyncFailed, OSError) as error:
            self._poison = f"an earlier failure: {error}"
            raise

    def release(self) -> None:
        """Let another process take the folder."""
        self.held = False
        self._lock.release()
