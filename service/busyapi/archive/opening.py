"""Taking a partition's folder: lock, identity, repair.

Repair copies an open segment, which takes space. On a full volume expired segments are deleted
before that copy. Only there: whether this is the right archive is known after it was compared
with Redis, and what is deleted does not come back.
"""

from pathlib import Path
from typing import NamedTuple

from busyapi.archive import coverage, highwater, identity, names, reserve
from busyapi.archive.durable import full_named, make_folder
from busyapi.archive.highwater import HighWater
from busyapi.archive.identity import Identity
from busyapi.archive.keys import KeyLog
from busyapi.archive.lock import FolderLock
from busyapi.archive.names import Kind
from busyapi.archive.repair import Repair
from busyapi.archive.retention import Retention
from busyapi.errors import ArchiveFull


class Opened(NamedTuple):
    """A folder that is locked and repaired."""

    lock: FolderLock
    identity: Identity
    repair: Repair
    reached: HighWater
    keys: KeyLog


def open_folder(
    folder: Path,
    partition: int,
    partitions: int,
    *,
    bound: int,
    keep_days: int,
    lock: FolderLock | None,
) -> Opened:
    """Lock the folder, made if need be, and repair what a crash left behind.

    A lock that is held already is taken over, whatever happens.

    Raises:
        ArchiveLocked, PartitionMismatch, ArchiveDamaged, ArchiveFull, SyncFailed: see
            PartitionWriter.recover.
    """
    with full_named(folder):
        if lock is None:
            make_folder(folder)
            lock = FolderLock(folder)
        try:
            found = identity.claim(folder, partition, partitions, bound)
            try:
                repair = _repair(folder, found)
            except ArchiveFull:
                alarms: list[str] = []
                found = roomier = _expire(folder, found, keep_days, alarms)
                repair = reserve.with_reserve(folder, lambda: _repair(folder, roomier))
                repair.alarms += alarms
            # Now that recovery is over: a mark that lies beyond the files is kept, and halts.
            cursor = coverage.cursor(repair.files, found.kept_from)
            mark = HighWater.begin(folder, found.archive_id, max(repair.reached, cursor))
            keys = KeyLog.recover(folder, partition, mark.seq, repair.alarms)
            reserve.make(folder)
        except BaseException:
            lock.release()
            raise
    return Opened(lock, found, repair, mark, keys)


def _expire(folder: Path, found: Identity, days: int, alarms: list[str]) -> Identity:
    """Delete what retention ends; return the identity with the floor that is on disk."""
    files = names.list_files(folder, found.partition).files
    whole = [each for each in files if each.kind not in {Kind.OPEN, Kind.TORN}]
    cursor = coverage.cursor(whole, found.kept_from)
    # Below a hole nothing is deleted: a person has to look at it first.
    hole = any(each.last > cursor for each in whole)
    if not days or hole:
        return found
    raised = [found]
    Retention(folder, alarms, set()).run(found, files, days, None, raised.append)
    return raised[-1]


def _repair(folder: Path, found: Identity) -> Repair:
    with full_named(folder):
        repair = Repair(folder, found, highwater.read(folder, found.archive_id))
        repair.run()
        return repair
