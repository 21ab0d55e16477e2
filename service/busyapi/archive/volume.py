"""A partition's folder before it has a writer: locked and looked at, then recovered.

Recovery changes files, and another process may still write them where the lock does not hold. So
a flusher looks first, takes the lease of the archive it has found, and recovers after that.
"""

from pathlib import Path

from busyapi.archive import identity, paths
from busyapi.archive.fsync import make_folder, translate_full_volume
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.writer import PartitionWriter


class ArchiveVolume:
    """The folder of one partition, and how it is to be written."""

    def __init__(
        self,
        root: Path,
        partition: int,
        partitions: int,
        *,
        bound: int,
        segment_bytes: int,
        segment_age: float,
        retention_days: int,
    ) -> None:
        self._root = root
        self._partition = partition
        self._partitions = partitions
        self._options = {"bound": bound, "segment_bytes": segment_bytes}
        self._options |= {"retention_days": retention_days}
        self._segment_age = segment_age
        self._lock: FolderLock | None = None

    def read_identity(self) -> Identity | None:
        """Lock the folder, made if need be, and return its identity; None while it has none.

        It stays locked until `recover` or `unlock`.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: it is another partition, or one of another number of them.
            ArchiveDamaged, UnknownVersion: its identity cannot be read.
        """
        folder = paths.partition_folder(self._root, self._partition)
        if self._lock is None:
            with translate_full_volume(folder):
                make_folder(folder)
                self._lock = FolderLock(folder)
        found = identity.read_identity(folder)
        if found:
            identity.require_partition(found, folder, self._partition, self._partitions)
        return found

    def recover(self) -> PartitionWriter:
        """Recover the partition; the writer keeps the lock. Raises as `PartitionWriter.recover`."""
        lock, self._lock = self._lock, None
        return PartitionWriter.recover(
            self._root,
            self._partition,
            self._partitions,
            segment_age=self._segment_age,
            lock=lock,
            **self._options,
        )

    def unlock(self) -> None:
        """Release the folder, if it is locked and has no writer."""
        lock, self._lock = self._lock, None
        if lock:
            lock.release()
