"""A partition's folder before it has a writer: locked, inspected, then recovered.

Recovery changes files, and on a file system without working locks another process may still be
writing them. So a flusher reads the identity first, takes the lease of that archive, and only then
recovers.
"""

from busyapi.archive import identity
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.fsync import make_folder, translate_full_volume
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.writer import PartitionWriter


class UnrecoveredFolder:
    """The folder of one partition, and the settings of its archive."""

    def __init__(self, config: ArchiveConfig) -> None:
        self._config = config
        self._lock: FolderLock | None = None

    def read_identity(self) -> Identity | None:
        """Lock the folder, creating it if necessary; return its identity, None for a new folder.

        The folder stays locked until `recover` or `unlock`.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: as `require_partition`.
            ArchiveDamaged, UnknownVersion: the identity cannot be read.
        """
        folder = self._config.folder
        if self._lock is None:
            with translate_full_volume(folder):
                make_folder(folder)
                self._lock = FolderLock(folder)
        current = identity.read_identity(folder)
        if current:
            identity.require_partition(
                current, folder, self._config.partition, self._config.partitions
            )
        return current

    def recover(self) -> PartitionWriter:
        """Recover the partition; the writer keeps the lock. Raises as `PartitionWriter.recover`."""
        lock, self._lock = self._lock, None
        return PartitionWriter.recover(self._config, lock)

    def unlock(self) -> None:
        """Release the folder if it is locked and has no writer."""
        lock, self._lock = self._lock, None
        if lock:
            lock.release()
