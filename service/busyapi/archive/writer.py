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

from busyapi.archive import coverage, identity, names, records, reserve
from busyapi.archive.coverage import Range
from busyapi.archive.figures import Figures
from busyapi.archive.format import Batch
from busyapi.archive.holding import Holding
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.lookup import Lookup
from busyapi.archive.names import File
from busyapi.archive.opening import Opened, open_folder
from busyapi.archive.packing import Flushed, pack
from busyapi.archive.retention import Retention
from busyapi.archive.segment import Rolling, Segment
from busyapi.errors import ArchiveFull, ArchiveTaken, LossSuspected
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

__all__ = ["Batch", "Flushed", "PartitionWriter"]


class PartitionWriter(Figures):
    """Owns the folder of one partition."""

    def __init__(self, folder: Path, found: Opened, rolling: Rolling) -> None:
        """Take what recovery found. Use `recover`."""
        self.alarms = found.repair.alarms
        """What recovery set aside and what was found damaged since, one sentence each."""
        self.notices = [found.lock.warning] if found.lock.warning else []
        """What an operator should know and that is no damage, one sentence each."""
        readable = Lookup(folder, found.repair.files, found.identity.kept_from, self.alarms)
        readable.rotten |= found.repair.unreadable
        super().__init__(folder, found.identity, readable, found.reached)
        self._holding = Holding(folder, found.lock)
        self._rolling, self.keys = rolling, found.keys
        self._retention = Retention(folder, self.alarms, readable.rotten)

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
            SyncFailed: the process must exit.
        """
        folder = names.partition_folder(root, partition)
        found = open_folder(
            folder, partition, partitions, bound=bound, keep_days=retention_days, lock=lock
        )
        return cls(folder, found, Rolling(segment_bytes, segment_age, retention_days))

    def mark(self, *, seeded: bool = False, replaces: str = "", prefix: str = "") -> None:
        """Put one of them on disk.

        Raises:
            ArchiveFull, SyncFailed: as append.
        """
        seeded, replaces = seeded or self.seeded, replaces or self.replaces
        self._write_identity(seeded=seeded, replaces=replaces, prefix=prefix or self.prefix)

    def rehome(self) -> None:
        """Make a copy the original: no id that it does not cover was given out, or may be again.

        Raises:
            ArchiveFull, SyncFailed: as append.
        """
        self._write_identity(restored=False, seeded=True)

    def _write_identity(self, **changes: Any) -> None:
        with self._changing():
            changed = self._identity._replace(**changes)
            self._identity = identity.write(self._folder, changed)

    def append(self, batches: Sequence[Batch]) -> Flushed:
        """Archive batches that follow the cursor and each other, as one block, on disk.

        Raises:
            ArchiveFull: nothing was taken; the same append works when there is space.
            SyncFailed: what the disk holds is unknown; the process must exit.
            ArchiveTaken: as check_ours; so do all that change the archive.
            LossSuspected: seqs below the newest are missing, and nobody has accepted that.
            ValueError: the batches do not follow the cursor, or cannot be lines.
        """
        try:
            return self._append(batches)
        except ArchiveFull:
            with self._changing():
                made_room = self._expire()
            if not made_room:
                raise
        return self._append(batches)

    def _append(self, batches: Sequence[Batch]) -> Flushed:
        with self._changing():
            self._check_next(batches[0].first, batches[-1].last)
            started = perf_counter()
            block, data, raw_bytes = pack(
                batches, self._identity.partition, self._identity.partitions
            )
            segment = self._readable.segment or self._begin(block.first)
            written = segment.write(block, data)
            failpoint("archive-after-write")
            synced_from = perf_counter()
            segment.sync()
            synced = perf_counter()
            failpoint("archive-after-sync")
            with self._readable.lock:
                segment.accept(block, written, raw_bytes)
            self.cursor = self.highest = block.last
            self._reached.reach(self.cursor)
        usages = block.last - block.first + 1
        return Flushed(usages, raw_bytes, len(written), synced_from - started, synced - synced_from)

    def gap(self, through: Seq, why: str) -> None:
        """Record that seqs behind the cursor, up to `through`, are no usages.

        Those of them that a file holds stay what they are: only the holes are recorded.

        Raises:
            ArchiveFull, SyncFailed: as append.
            ValueError: the cursor is not below `through`.
        """
        if through <= self.cursor:
            raise ValueError(f"seq {through} is not beyond the cursor, {self.cursor}")
        with self._changing():
            self._finish()
            for hole in self.holes(through):
                self._add(records.write_gap(self._folder, self._identity, hole, why))

    def holes(self, through: Seq) -> list[Range]:
        """List what `gap` would record: the seqs behind the cursor that no file answers for."""
        return list(coverage.holes(self._readable.files, Seq(self.cursor + 1), through))

    def quarantine(self, first: Seq, last: Seq, raw: bytes, why: str) -> None:
        """Keep an entry behind the cursor that could not be rendered, as it came.

        Raises:
            ArchiveFull, SyncFailed, LossSuspected, ValueError: as append.
        """
        with self._changing():
            self._check_next(first, last)
            self._finish()
            at = self._folder, self._identity, Range(first, last)
            self._add(records.write_quarantine(*at, raw, why))

    def roll_if_due(self) -> bool:
        """Finish the open segment if it is large or old enough; delete what retention ends.

        Raises:
            ArchiveFull, SyncFailed: as append.
        """
        with self._changing():
            self._expire()
            segment = self._readable.segment
            due = segment is not None and segment.is_due(self._rolling)
            if due:
                self._finish()
                reserve.make(self._folder)
            return due

    def find(self, seq: Seq) -> bytes | None:
        """Return the archived line of a seq, without newline; None where there is none.

        Raises:
            NoLongerKept: it was deleted when its retention time was over.
            ArchiveDamaged: it cannot be read.
            SyncFailed: as append.
        """
        self._holding.require()
        return self._readable.find(seq)

    def check_ours(self) -> None:
        """Check that no other process has taken the archive over: between append and publish.

        What was appended counts only if the open segment is still the file at its path: a recovery
        by another process copies the file and removes it, whatever we append after that. After a
        failure the writer changes nothing any more, and `close` does not finish the segment.

        Raises:
            ArchiveTaken: publish nothing; close, and recover.
        """
        self._holding.check_ours(self._readable.segment)

    def close(self, *, finish: bool = True) -> None:
        """Finish the open segment if that is possible, and release the folder.

        With `finish` false nothing is written: for a writer whose archive another process may
        have taken over. The segment stays open, for the next recovery.

        Raises:
            SyncFailed: the disk refused; the next recovery copies the segment.
        """
        if not self._holding.held:
            return
        try:
            if finish and self._holding.sound:
                # A footer in the reserve saves the next recovery a copy of the segment.
                with suppress(ArchiveFull, ArchiveTaken):
                    reserve.with_reserve(self._folder, self._finish_now)
        finally:
            self._holding.release()
            for each in (self.keys, self._readable, self._reached):
                each.close()

    def _changing(self) -> AbstractContextManager[None]:
        return self._holding.changing(self._readable.segment)

    def _check_next(self, first: Seq, last: Seq) -> None:
        if self.highest > self.cursor:
            raise LossSuspected(
                f"{self._folder} holds seq {self.highest}, but not all behind {self.cursor}"
            )
        if first != self.cursor + 1 or last < first:
            raise ValueError(f"seqs {first} to {last} do not follow the cursor, {self.cursor}")

    def _begin(self, first: Seq) -> Segment:
        try:
            segment = Segment(self._folder, self._identity, names.day_of(), first)
        except FileExistsError as error:
            # Recovery leaves no open segment behind: this one is another process's.
            raise ArchiveTaken(f"{error.filename} was made by another process") from error
        self._readable.begin(segment)
        return segment

    def _finish_now(self) -> None:
        with self._changing():
            self._finish()

    def _finish(self) -> None:
        """Make the open segment a finished one; remove it if nothing was ever accepted."""
        segment = self._readable.segment
        if segment is None:
            return
        if len(segment.index) == 0:
            segment.check_ours()
            self._readable.close()
            segment.remove()
            return
        self._add(segment.finish())
        segment.close()

    def _add(self, file: File) -> None:
        self._readable.add(file)
        self._count()
        self._reached.reach(self.cursor)
        self._reached.sync()

    @property
    def retention_refused(self) -> str:
        """Why old files are not deleted, "" if they are."""
        return self._retention.refused

    def _expire(self) -> bool:
        """Delete what retention ends, once a day; return whether something was deleted."""
        days, segment = self._rolling.keep_days, self._readable.segment
        latest_ms = segment.latest_ms if segment else None
        if not days or self.highest > self.cursor or not self._retention.is_due(latest_ms):
            return False
        files = self._readable.files
        gone = self._retention.run(self._identity, files, days, latest_ms, self._raise_floor)
        self._readable.drop(gone, self.kept_from)
        reserve.make(self._folder)
        return bool(gone)

    def _raise_floor(self, raised: Identity) -> None:
        self._identity = raised
        self._readable.drop([], raised.kept_from)
