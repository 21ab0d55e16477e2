"""Taking a partition's folder: lock, identity, repair.

Repair copies an open segment, which takes space. On a full volume expired segments are deleted
before that copy. Only there: whether this is the right archive is known after it was compared
with Redis, and what is deleted does not come back.
"""

from pathlib import Path
from typing import NamedTuple

from busyapi.archive import disk_reserve, high_water, identity, paths, ranges
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
    """A folder that is locked and repaired."""

    lock: FolderLock
    identity: Identity
    recovery: Recovery
    high_water: HighWaterMark
    keys: IdempotencyLog


def open_folder(
    folder: Path,
    partition: int,
    partitions: int,
    *,
    bound: int,
    keep_days: int,
    lock: FolderLock | None,
) -> OpenedFolder:
    """Lock the folder, made if need be, and repair what a crash left behind.

    A lock that is held already is taken over, whatever happens.

    Raises:
        ArchiveLocked, PartitionMismatch, ArchiveDamaged, ArchiveFull, FsyncFailed: see
            PartitionWriter.recover.
    """
    with translate_full_volume(folder):
        if lock is None:
            make_folder(folder)
            lock = FolderLock(folder)
        try:
            found = identity.claim_identity(folder, partition, partitions, bound)
            try:
                repair = _recover(folder, found)
            except ArchiveFull:
                alarms: list[str] = []
                found = roomier = _delete_expired(folder, found, keep_days, alarms)
                repair = disk_reserve.retry_with_reserve(folder, lambda: _recover(folder, roomier))
                repair.alarms += alarms
            # Now that recovery is over: a mark that lies beyond the files is kept, and halts.
            cursor = ranges.find_cursor(repair.files, found.kept_from)
            mark = HighWaterMark.create(folder, found.archive_id, max(repair.high_water, cursor))
            keys = IdempotencyLog.recover(folder, partition, mark.seq, repair.alarms)
            disk_reserve.create_reserve(folder)
        except BaseException:
            lock.release()
            raise
    return OpenedFolder(lock, found, repair, mark, keys)


def _delete_expired(folder: Path, found: Identity, days: int, alarms: list[str]) -> Identity:
    """Delete what retention ends; return the identity with the floor that is on disk."""
    files = paths.list_files(folder, found.partition).files
    whole = [each for each in files if each.kind not in {FileKind.OPEN, FileKind.TORN}]
    cursor = ranges.find_cursor(whole, found.kept_from)
    # Below a hole nothing is deleted: a person has to look at it first.
    hole = any(each.last > cursor for each in whole)
    if not days or hole:
        return found
    raised = [found]
    Retention(folder, alarms, set()).delete_expired(found, files, days, None, raised.append)
    return raised[-1]


def _recover(folder: Path, found: Identity) -> Recovery:
    with translate_full_volume(folder):
        repair = Recovery(folder, found, high_water.read_mark(folder, found.archive_id))
        repair.run()
        return repair
