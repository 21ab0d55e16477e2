"""Opening a partition's folder: lock, identity, recovery.

Recovery copies an open segment, which needs space. On a full volume expired segments are deleted
before that copy. Only a full volume justifies this: nothing has yet compared the archive with
Redis, so it could be the wrong one, and a deletion cannot be undone.
"""

from pathlib import Path
from typing import NamedTuple

from busyapi.archive import disk_reserve, high_water, identity, paths, ranges
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.fsync import make_folder, translate_full_volume
from busyapi.archive.high_water import HighWaterMark
from busyapi.archive.idempotency_log import IdempotencyLog
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.paths import FileKind
from busyapi.archive.recovery import Recovery
from busyapi.archive.retention import Retention
from busyapi.errors import ArchiveFull


class OpenedFolder(NamedTuple):
    """A folder that is locked and recovered."""

    lock: FolderLock
    identity: Identity
    recovery: Recovery
    high_water: HighWaterMark
    idempotency_log: IdempotencyLog


def open_folder(config: ArchiveConfig, lock: FolderLock | None) -> OpenedFolder:
    """Lock the folder, creating it if necessary, and recover from a crash.

    The function takes over a lock that the caller holds, and releases it on every error.

    Raises:
        ArchiveLocked, PartitionMismatch, ArchiveDamaged, ArchiveFull, FsyncFailed: see
            PartitionWriter.recover.
    """
    folder, partition = config.folder, config.partition
    with translate_full_volume(folder):
        if lock is None:
            make_folder(folder)
            lock = FolderLock(folder)
        try:
            current = identity.claim_identity(
                folder, partition, config.partitions, config.bound, config.format
            )
            try:
                recovery = _recover(folder, current)
            except ArchiveFull:
                damage_reports: list[str] = []
                current = raised = _delete_expired(
                    folder, current, config.retention_days, damage_reports
                )
                recovery = disk_reserve.retry_with_reserve(folder, lambda: _recover(folder, raised))
                recovery.damage_reports += damage_reports
            # A mark beyond the files must survive recovery: it halts the flusher.
            cursor = ranges.find_cursor(recovery.files, current.kept_from)
            mark = HighWaterMark.create(
                folder, current.archive_id, max(recovery.high_water, cursor)
            )
            keys = IdempotencyLog.recover(folder, partition, mark.seq, recovery.damage_reports)
            disk_reserve.create_reserve(folder)
        except BaseException:
            lock.release()
            raise
    return OpenedFolder(lock, current, recovery, mark, keys)


def _delete_expired(
    folder: Path, current: Identity, days: int, damage_reports: list[str]
) -> Identity:
    """Delete expired files; return the identity with the floor that is on disk."""
    files = paths.list_files(folder, current.partition).files
    complete = [file for file in files if file.kind not in {FileKind.OPEN, FileKind.DOUBTFUL}]
    cursor = ranges.find_cursor(complete, current.kept_from)
    # With a hole nothing is deleted: an operator must look at it first.
    has_hole = any(file.last > cursor for file in complete)
    if not days or has_hole:
        return current
    identities = [current]
    Retention(folder, damage_reports, set()).delete_expired(
        current, files, days, None, identities.append
    )
    return identities[-1]


def _recover(folder: Path, current: Identity) -> Recovery:
    with translate_full_volume(folder):
        mark = high_water.read_mark(folder, current.archive_id)
        recovery = Recovery(folder, current, mark)
        recovery.run()
        return recovery
