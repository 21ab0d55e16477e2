"""The archive of one partition, while this process owns it.

    recover ──> append | gap | quarantine | roll_if_due … ──> close

The cursor is the last seq that is on disk. It moves after an fsync and never before, so whoever
reads on behind it loses nothing and gets nothing twice. If we die between the fsync and the
caller's next step, recovery finds the same cursor in the files.

One thread at a time may change the archive; find() may be called from any thread meanwhile.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from busyapi.archive import disk_reserve, identity, markers, paths, ranges
from busyapi.archive.block_builder import AppendStats, build_block
from busyapi.archive.folder import OpenedFolder, open_folder
from busyapi.archive.format import UsageBatch
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.lookup import ArchiveLookup
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.ranges import SeqRange
from busyapi.archive.retention import Retention
from busyapi.archive.segment import Segment, SegmentPolicy
from busyapi.archive.stats import ArchiveStats
from busyapi.archive.write_access import WriteAccess
from busyapi.errors import ArchiveFull, ArchiveTakenOver, LossSuspected
from busyapi.failpoints import failpoint
from busyapi.ids import Seq


class PartitionWriter(ArchiveStats):
    """Owns the folder of one partition."""

    def __init__(self, folder: Path, found: OpenedFolder, rolling: SegmentPolicy) -> None:
        """Take what recovery found. Use `recover`."""
        self.alarms = found.recovery.alarms
        """What recovery set aside and what was found damaged since, one sentence each."""
        self.notices = [found.lock.warning] if found.lock.warning else []
        """What an operator should know and that is no damage, one sentence each."""
        files, kept_from = found.recovery.files, found.identity.kept_from
        readable = ArchiveLookup(folder, files, kept_from, self.alarms)
        readable.unreadable |= found.recovery.unreadable
        super().__init__(folder, found.identity, readable, found.high_water)
        self._access = WriteAccess(folder, found.lock)
        self._policy, self.idempotency_log = rolling, found.keys
        self._retention = Retention(folder, self.alarms, readable.unreadable)

    @classmethod
    def recover(
        cls,
        root: Path,
        partition: int,
        partitions: int,
        *,
        bound: int,
        segment_bytes: int,
        segment_age: float,
        retention_days: int,
        lock: FolderLock | None = None,
    ) -> Self:
        """Lock the partition's folder, made if need be, and repair what a crash left behind.

        `bound` (usages) is on disk when this returns, if it is larger than any before. Segments
        are finished at `segment_bytes` or after `segment_age` seconds. A `lock` is taken over.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: this is another partition, or there were more or fewer of them.
            ArchiveDamaged: only a person can tell which of two files is right.
            ArchiveFull: there is no space to recover in; nothing is lost, try again.
            FsyncFailed: the process must exit.
        """
        folder = paths.partition_folder(root, partition)
        found = open_folder(
            folder, partition, partitions, bound=bound, keep_days=retention_days, lock=lock
        )
        return cls(folder, found, SegmentPolicy(segment_bytes, segment_age, retention_days))

    def mark_identity(self, *, seeded: bool = False, replaces: str = "", prefix: str = "") -> None:
        """Put one of them on disk.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        seeded, replaces = seeded or self.seeded, replaces or self.replaces
        self._write_identity(is_seeded=seeded, replaces=replaces, prefix=prefix or self.prefix)

    def adopt_copy(self) -> None:
        """Make a copy the original: no id that it does not cover was given out, or may be again.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        self._write_identity(is_copy=False, is_seeded=True)

    def _write_identity(self, **changes: Any) -> None:
        with self._guard_change():
            changed = self._identity._replace(**changes)
            self._identity = identity.write_identity(self._folder, changed)

    def append(self, batches: Sequence[UsageBatch]) -> AppendStats:
        """Archive batches that follow the cursor and each other, as one block, on disk.

        Raises:
            ArchiveFull: nothing was taken; the same append works when there is space.
            FsyncFailed: what the disk holds is unknown; the process must exit.
            ArchiveTakenOver: as check_ours; so do all that change the archive.
            LossSuspected: seqs below the newest are missing, and nobody has accepted that.
            ValueError: the batches do not follow the cursor, or cannot be lines.
        """
        try:
            return self._append(batches)
        except ArchiveFull:
            with self._guard_change():
                made_room = self._delete_expired()
            if not made_room:
                raise
        return self._append(batches)

    def _append(self, batches: Sequence[UsageBatch]) -> AppendStats:
        with self._guard_change():
            self._check_next(batches[0].first, batches[-1].last)
            started = perf_counter()
            block, data, raw_bytes = build_block(
                batches, self._identity.partition, self._identity.partitions
            )
            segment = self._lookup.segment or self._begin_segment(block.first)
            written = segment.write(block, data)
            failpoint("archive-after-write")
            synced_from = perf_counter()
            segment.sync()
            synced = perf_counter()
            failpoint("archive-after-sync")
            with self._lookup.lock:
                segment.accept(block, written, raw_bytes)
            self.cursor = self.highest_seq = block.last
            self._high_water.advance(self.cursor)
        usages = block.last - block.first + 1
        write_seconds, sync_seconds = synced_from - started, synced - synced_from
        return AppendStats(usages, raw_bytes, len(written), write_seconds, sync_seconds)

    def record_gap(self, through: Seq, why: str) -> None:
        """Record that seqs behind the cursor, up to `through`, are no usages.

        Those of them that a file holds stay what they are: only the holes are recorded.

        Raises:
            ArchiveFull, FsyncFailed: as append.
            ValueError: the cursor is not below `through`.
        """
        if through <= self.cursor:
            raise ValueError(f"seq {through} is not beyond the cursor, {self.cursor}")
        with self._guard_change():
            self._finish_segment()
            for hole in self.find_holes(through):
                self._add_file(markers.write_gap(self._folder, self._identity, hole, why))

    def find_holes(self, through: Seq) -> list[SeqRange]:
        """List the seqs behind the cursor that no file holds, as `record_gap` would record them."""
        return list(ranges.find_holes(self._lookup.files, Seq(self.cursor + 1), through))

    def quarantine(self, first: Seq, last: Seq, raw: bytes, why: str) -> None:
        """Keep an entry behind the cursor that could not be rendered, as it came.

        Raises:
            ArchiveFull, FsyncFailed, LossSuspected, ValueError: as append.
        """
        with self._guard_change():
            self._check_next(first, last)
            self._finish_segment()
            at = self._folder, self._identity, SeqRange(first, last)
            self._add_file(markers.write_quarantine(*at, raw, why))

    def roll_if_due(self) -> bool:
        """Finish the open segment if it is large or old enough; delete what retention ends.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        with self._guard_change():
            self._delete_expired()
            segment = self._lookup.segment
            due = segment is not None and segment.is_due(self._policy)
            if due:
                self._finish_segment()
                disk_reserve.create_reserve(self._folder)
            return due

    def find_line(self, seq: Seq) -> bytes | None:
        """Return the archived line of a seq, without newline; None where there is none.

        Raises:
            UsageExpired: it was deleted when its retention time was over.
            ArchiveDamaged: it cannot be read.
            FsyncFailed: as append.
        """
        self._access.require_usable()
        return self._lookup.find_line(seq)

    def check_ownership(self) -> None:
        """Check that no other process has taken the archive over: between append and publish.

        What was appended counts only if the open segment is still the file at its path: a recovery
        by another process copies the file and removes it, whatever we append after that. After a
        failure the writer changes nothing any more, and `close` does not finish the segment.

        Raises:
            ArchiveTakenOver: publish nothing; close, and recover.
        """
        self._access.check_ownership(self._lookup.segment)

    def close(self, *, finish: bool = True) -> None:
        """Finish the open segment if that is possible, and release the folder.

        With `finish` false nothing is written: for a writer whose archive another process may
        have taken over. The segment stays open, for the next recovery.

        Raises:
            FsyncFailed: the disk refused; the next recovery copies the segment.
        """
        if not self._access.is_held:
            return
        try:
            if finish and self._access.is_usable:
                # A footer in the reserve saves the next recovery a copy of the segment.
                with suppress(ArchiveFull, ArchiveTakenOver):
                    disk_reserve.retry_with_reserve(self._folder, self._finish_now)
        finally:
            self._access.release()
            for each in (self.idempotency_log, self._lookup, self._high_water):
                each.close()

    def _guard_change(self) -> AbstractContextManager[None]:
        return self._access.guard_change(self._lookup.segment)

    def _check_next(self, first: Seq, last: Seq) -> None:
        if self.highest_seq > self.cursor:
            raise LossSuspected(
                f"{self._folder} holds seq {self.highest_seq}, but not all behind {self.cursor}"
            )
        if first != self.cursor + 1 or last < first:
            raise ValueError(f"seqs {first} to {last} do not follow the cursor, {self.cursor}")

    def _begin_segment(self, first: Seq) -> Segment:
        try:
            segment = Segment(self._folder, self._identity, paths.utc_day(), first)
        except FileExistsError as error:
            # Recovery leaves no open segment behind: this one is another process's.
            raise ArchiveTakenOver(f"{error.filename} was made by another process") from error
        self._lookup.set_open_segment(segment)
        return segment

    def _finish_now(self) -> None:
        with self._guard_change():
            self._finish_segment()

    def _finish_segment(self) -> None:
        """Make the open segment a finished one; remove it if nothing was ever accepted."""
        segment = self._lookup.segment
        if segment is None:
            return
        if len(segment.index) == 0:
            segment.check_ownership()
            self._lookup.close()
            segment.remove()
            return
        self._add_file(segment.finish())
        segment.close()

    def _add_file(self, file: ArchiveFile) -> None:
        self._lookup.add_file(file)
        self._update_stats()
        self._high_water.advance(self.cursor)
        self._high_water.sync()

    @property
    def retention_refused(self) -> str:
        """Why old files are not deleted, "" if they are."""
        return self._retention.refusal

    def _delete_expired(self) -> bool:
        """Delete what retention ends, once a day; return whether something was deleted."""
        days, segment = self._policy.keep_days, self._lookup.segment
        latest_ms = segment.latest_ms if segment else None
        if not days or self.highest_seq > self.cursor or not self._retention.is_due(latest_ms):
            return False
        delete = self._retention.delete_expired
        gone = delete(self._identity, self._lookup.files, days, latest_ms, self._raise_floor)
        self._lookup.remove_files(gone, self.kept_from)
        disk_reserve.create_reserve(self._folder)
        return bool(gone)

    def _raise_floor(self, raised: Identity) -> None:
        self._identity = raised
        self._lookup.remove_files([], raised.kept_from)
