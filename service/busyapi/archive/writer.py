"""The archive of one partition, while this process owns it.

    recover ──> append | record_gap | quarantine | roll_if_due … ──> close

The cursor is the last seq that is on disk. It moves only after an fsync, so a caller that reads
the stream from the cursor loses no usage and archives none twice. If the process dies between the
fsync and the caller's next step, recovery finds the same cursor in the files.

Only one thread at a time may change the archive. Any thread may call `find_line` meanwhile.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from time import perf_counter
from typing import Any, Self

from busyapi.archive import disk_reserve, identity, markers, paths, ranges
from busyapi.archive.block_builder import AppendStats, BlockBuilder
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.folder import OpenedFolder, open_folder
from busyapi.archive.format import UsageBatch
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.lookup import ArchiveLookup
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.ranges import SeqRange
from busyapi.archive.retention import Retention
from busyapi.archive.segment import Segment
from busyapi.archive.stats import ArchiveStats
from busyapi.archive.write_access import WriteAccess
from busyapi.errors import ArchiveFull, ArchiveTakenOver, LossSuspected
from busyapi.failpoints import failpoint
from busyapi.ids import Seq


class PartitionWriter:
    """The owner of one partition's folder."""

    def __init__(self, config: ArchiveConfig, opened: OpenedFolder) -> None:
        """Use what recovery found. Call `recover` instead."""
        recovery, self.identity = opened.recovery, opened.identity
        self.damage_reports = reports = recovery.damage_reports
        """Damage that recovery or a later read found, one sentence each."""
        self.notices = [opened.lock.warning] if opened.lock.warning else []
        """What an operator should know besides damage, one sentence each."""
        self.idempotency_log, self._high_water = opened.idempotency_log, opened.high_water
        self._config, self._folder = config, config.folder
        self._lookup = ArchiveLookup(self._folder, recovery.files, self.identity, reports)
        self._lookup.unreadable |= recovery.unreadable
        self.stats = ArchiveStats(self._folder, self._lookup, self._high_water)
        self._access = WriteAccess(self._folder, opened.lock)
        self._retention = Retention(self._folder, reports, self._lookup.unreadable)
        self._builder = BlockBuilder()

    @classmethod
    def recover(cls, config: ArchiveConfig, lock: FolderLock | None = None) -> Self:
        """Lock the partition's folder, creating it if necessary, and recover from a crash.

        When this returns, the identity on disk has a bound of at least `config.bound`. The writer
        takes over a `lock` that the caller holds.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: as `claim_identity`.
            ArchiveDamaged: only an operator can decide which of two files is right.
            ArchiveFull: there is no space for recovery. Nothing is lost; try again.
            FsyncFailed: the process must exit.
        """
        return cls(config, open_folder(config, lock))

    @property
    def cursor(self) -> Seq:
        """The last seq that is on disk together with all seqs below it."""
        return self.stats.cursor

    def update_identity(self, **changes: Any) -> None:
        """Put changed members of the identity on disk.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        with self._guard_change():
            if "strides" in changes:
                self._finish_segment()  # all seqs of a segment have one stride
            changed = self.identity._replace(**changes)
            self.identity = identity.write_identity(self._folder, changed)
            self._lookup.ids = self.identity.ids

    def adopt_copy(self) -> None:
        """Make a copy the original: no id beyond it was issued, or can be issued again.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        self.update_identity(is_copy=False, is_seeded=True)

    def append(self, batches: Sequence[UsageBatch]) -> AppendStats:
        """Archive batches as one block and sync it. They follow the cursor and each other.

        Raises:
            ArchiveFull: nothing was archived; the same append works when there is space.
            FsyncFailed: what the disk holds is unknown; the process must exit.
            ArchiveTakenOver: as check_ownership. Every method that changes the archive raises it.
            LossSuspected: seqs below the newest are missing, and no operator has accepted the loss.
            ValueError: the batches do not follow the cursor, or cannot be rendered as lines.
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
            header, data, raw_bytes = self._builder.build(
                batches, *self.identity.owner_at(batches[0].first)
            )
            segment = self._lookup.segment or self._begin_segment(header.first)
            written = segment.write(header, data)
            failpoint("archive-after-write")
            synced_from = perf_counter()
            segment.sync()
            synced = perf_counter()
            failpoint("archive-after-sync")
            with self._lookup.lock:
                segment.accept(header, written, raw_bytes)
            self.stats.record_append(header.last)
            self._high_water.advance(header.last)
        usages = header.last - header.first + 1
        write_seconds, sync_seconds = synced_from - started, synced - synced_from
        return AppendStats(usages, raw_bytes, len(written), write_seconds, sync_seconds)

    def record_gap(self, through: Seq, why: str) -> None:
        """Record that the seqs after the cursor, up to `through`, are not usages.

        Seqs that a file holds keep their usages: only the holes are recorded.

        Raises:
            ArchiveFull, FsyncFailed: as append.
            ValueError: the cursor is not below `through`.
        """
        if through <= self.cursor:
            raise ValueError(f"seq {through} is not beyond the cursor, {self.cursor}")
        with self._guard_change():
            self._finish_segment()
            for hole in self.find_holes(through):
                self._add_file(markers.write_gap(self._folder, self.identity, hole, why))

    def find_holes(self, through: Seq) -> list[SeqRange]:
        """List the seqs after the cursor that no file holds, as `record_gap` would record them."""
        return list(ranges.find_holes(self._lookup.files, Seq(self.cursor + 1), through))

    def quarantine(self, first: Seq, last: Seq, raw: bytes, why: str) -> None:
        """Keep the raw bytes of the entry after the cursor, which could not be rendered.

        Raises:
            ArchiveFull, FsyncFailed, LossSuspected, ValueError: as append.
        """
        with self._guard_change():
            self._check_next(first, last)
            self._finish_segment()
            place = self._folder, self.identity, SeqRange(first, last)
            self._add_file(markers.write_quarantine(*place, raw, why))

    def roll_if_due(self) -> bool:
        """Finish the open segment if it is large or old enough; delete expired files.

        Return whether a segment was finished.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        with self._guard_change():
            self._delete_expired()
            segment = self._lookup.segment
            due = segment is not None and segment.is_due(self._config)
            if due:
                self._finish_segment()
                disk_reserve.create_reserve(self._folder)
            return due

    def find_line(self, seq: Seq) -> bytes | None:
        """Return the archived line of a seq, without newline; None if the archive has no such seq.

        Raises:
            UsageExpired: retention deleted it.
            ArchiveDamaged: it cannot be read.
            FsyncFailed: as append.
        """
        self._access.require_usable()
        return self._lookup.find_line(seq)

    def check_ownership(self) -> None:
        """Check, between append and publish, that no other process has taken over the archive.

        An append counts only while the open segment is still the file at its path: a recovery by
        another process copies the file and removes it, and the copy lacks every later append.
        After a takeover the writer changes nothing, and `close` does not finish the segment.

        Raises:
            ArchiveTakenOver: publish nothing; close, and recover.
        """
        self._access.check_ownership(self._lookup.segment)

    def close(self, *, finish: bool = True) -> None:
        """Finish the open segment if possible, and release the folder.

        With `finish` false nothing is written: use it when another process may have taken over the
        archive. The next recovery then copies the open segment.

        Raises:
            FsyncFailed: the disk failed; the next recovery copies the segment.
        """
        if not self._access.is_held:
            return
        try:
            if finish and self._access.is_usable:
                # On a full volume the footer uses the reserve: the next recovery need not copy.
                with suppress(ArchiveFull, ArchiveTakenOver):
                    disk_reserve.retry_with_reserve(self._folder, self._finish_guarded)
        finally:
            self._access.release()
            for resource in (self.idempotency_log, self._lookup, self._high_water):
                resource.close()

    def _guard_change(self) -> AbstractContextManager[None]:
        return self._access.guard_change(self._lookup.segment)

    def _check_next(self, first: Seq, last: Seq) -> None:
        if self.stats.highest_seq > self.cursor:
            raise LossSuspected(
                f"{self._folder} holds seq {self.stats.highest_seq}, but seqs after {self.cursor}"
                " are missing"
            )
        if first != self.cursor + 1 or last < first:
            raise ValueError(f"seqs {first} to {last} do not follow the cursor, {self.cursor}")

    def _begin_segment(self, first: Seq) -> Segment:
        try:
            segment = Segment(self._folder, self.identity, paths.utc_day(), first)
        except FileExistsError as error:
            # Recovery leaves no open segment, so another process made this one.
            raise ArchiveTakenOver(f"{error.filename} was made by another process") from error
        self._lookup.set_open_segment(segment)
        return segment

    def _finish_guarded(self) -> None:
        with self._guard_change():
            self._finish_segment()

    def _finish_segment(self) -> None:
        """Turn the open segment into a finished one; remove it if it has no accepted block."""
        segment = self._lookup.segment
        if segment and len(segment.index) > 0:
            self._add_file(segment.finish())
            segment.close()
        elif segment:
            segment.check_ownership()
            self._lookup.close()
            segment.remove()

    def _add_file(self, file: ArchiveFile) -> None:
        self._lookup.add_file(file)
        self.stats.update()
        self._high_water.advance(self.cursor)
        self._high_water.sync()

    @property
    def retention_refusal(self) -> str:
        """Why retention deletes no old files; empty if it does."""
        return self._retention.refusal

    def _delete_expired(self) -> bool:
        """Delete expired files, once a day; return whether a file was deleted."""
        days, segment = self._config.retention_days, self._lookup.segment
        latest_ms = segment.latest_ms if segment else None
        has_loss = self.stats.highest_seq > self.cursor
        if not days or has_loss or not self._retention.is_due(latest_ms):
            return False
        deleted = self._retention.delete_expired(
            self.identity, self._lookup.files, days, latest_ms, self._raise_floor
        )
        self._lookup.remove_files(deleted, self.identity.kept_from)
        disk_reserve.create_reserve(self._folder)
        return bool(deleted)

    def _raise_floor(self, raised: Identity) -> None:
        self.identity = raised
        self._lookup.remove_files([], raised.kept_from)
