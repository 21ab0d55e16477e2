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
from typing import Self

from busyapi.archive import coverage, highwater, identity, names, records, retention
from busyapi.archive.coverage import Range
from busyapi.archive.durable import full_named, make_folder
from busyapi.archive.figures import Figures
from busyapi.archive.format import Batch
from busyapi.archive.highwater import HighWater
from busyapi.archive.holding import Holding
from busyapi.archive.identity import Identity
from busyapi.archive.lock import FolderLock
from busyapi.archive.lookup import Lookup
from busyapi.archive.names import File
from busyapi.archive.packing import Flushed, pack
from busyapi.archive.repair import Repair
from busyapi.archive.segment import Rolling, Segment
from busyapi.errors import ArchiveFull, ArchiveTaken, LossSuspected
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

__all__ = ["Batch", "Flushed", "PartitionWriter"]


class PartitionWriter(Figures):
    """Owns the folder of one partition."""

    def __init__(
        self, folder: Path, lock: FolderLock, found: Identity, repair: Repair, rolling: Rolling
    ) -> None:
        """Take what recovery found. Use `recover`."""
        self.alarms = repair.alarms
        """What recovery set aside and what lookups found damaged since, one sentence each."""
        self.notices = [lock.warning] if lock.warning else []
        """What an operator should know and that is no damage, one sentence each."""
        readable = Lookup(folder, repair.files, found.kept_from, self.alarms)
        # Now that recovery is over: a mark that lies beyond the files is kept, and halts.
        cursor = coverage.cursor(repair.files, found.kept_from)
        reached = HighWater.begin(folder, found.archive_id, max(repair.reached, cursor))
        super().__init__(folder, found, readable, reached)
        self._holding = Holding(folder, lock)
        self._rolling = rolling
        self._expired_on = ""

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
        are finished at `segment_bytes` or after `segment_age` seconds. A `lock` that is held
        already is taken over, whatever happens.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: this is another partition, or there were more or fewer of them.
            ArchiveDamaged: only a person can tell which of two files is right.
            ArchiveFull: there is no space to recover in; nothing is lost, try again.
            SyncFailed: the process must exit.
        """
        folder = names.partition_folder(root, partition)
        with full_named(folder):
            if lock is None:
                make_folder(folder)
            lock = lock or FolderLock(folder)
            try:
                found = identity.claim(folder, partition, partitions, bound)
                repair = Repair(folder, found, highwater.read(folder, found.archive_id))
                repair.run()
            except BaseException:
                lock.release()
                raise
        return cls(folder, lock, found, repair, Rolling(segment_bytes, segment_age, retention_days))

    def mark(self, *, seeded: bool = False, replaces: str = "") -> None:
        """Put one of the two on disk.

        Raises:
            ArchiveFull, SyncFailed: as append.
        """
        with self._changing():
            marked = self._identity._replace(
                seeded=self.seeded or seeded, replaces=replaces or self.replaces
            )
            self._identity = identity.write(self._folder, marked)

    def rehome(self) -> None:
        """Make a copy the original: nothing after the time when it was made is missing in it.

        Raises:
            ArchiveFull, SyncFailed: as append.
        """
        with self._changing():
            whole = self._identity._replace(restored=False)
            self._identity = identity.write(self._folder, whole)

    def append(self, batches: Sequence[Batch]) -> Flushed:
        """Archive batches that follow the cursor and each other, as one block, on disk.

        Raises:
            ArchiveFull: nothing was taken; the same append works when there is space.
            SyncFailed: what the disk holds is unknown; the process must exit.
            ArchiveTaken: as check_ours; so do all that change the archive.
            LossSuspected: seqs below the newest are missing, and nobody has accepted that.
            ValueError: the batches do not follow the cursor, or cannot be lines.
        """
        with self._changing():
            self._check_next(batches[0].first, batches[-1].last)
            self._expire()
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
                with suppress(ArchiveFull, ArchiveTaken), self._changing():
                    self._finish()
        finally:
            self._holding.release()
            self._readable.close()
            self._reached.close()

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

    def _expire(self) -> None:
        """Once a day, delete what is older than it is kept.

        The floor is on disk first. If we die after that, what is left below it is deleted by the
        next call; the other way round a deleted segment would look like a lost one.
        """
        today = names.day_of()
        if not self._rolling.keep_days or today == self._expired_on or self.highest > self.cursor:
            return
        old = retention.expired(
            self._folder, self._readable.files, self.kept_from, self._rolling.keep_days
        )
        if old:
            kept_from = max(self.kept_from, Seq(old[-1].last + 1))
            raised = self._identity._replace(kept_from=kept_from)
            self._identity = identity.write(self._folder, raised)
            self._readable.drop(old, kept_from)
            retention.delete(self._folder, old)
        self._expired_on = today
