"""The archive of one partition, while this process owns it.

    recover ──> append | gap | quarantine | roll_if_due … ──> close

The cursor is the last seq that is on disk. It moves after an fsync and never before, so whoever
reads on behind it loses nothing and gets nothing twice. If we die between the fsync and the
caller's next step, recovery finds the same cursor in the files.

One thread at a time may change the archive; find() may be called from any thread meanwhile.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Self

from busyapi.archive import coverage, identity, names, records, retention
from busyapi.archive.coverage import Range
from busyapi.archive.durable import full_named, make_folder
from busyapi.archive.figures import Figures
from busyapi.archive.format import Batch
from busyapi.archive.identity import Identity
from busyapi.archive.lookup import Lookup
from busyapi.archive.names import File
from busyapi.archive.packing import Flushed, pack
from busyapi.archive.repair import Repair
from busyapi.archive.segment import Rolling, Segment
from busyapi.errors import ArchiveError, ArchiveFull, LossSuspected, SyncFailed
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

__all__ = ["Batch", "Flushed", "PartitionWriter"]


class PartitionWriter(Figures):
    """Owns the folder of one partition."""

    def __init__(
        self, folder: Path, lock: int, found: Identity, repair: Repair, rolling: Rolling
    ) -> None:
        """Take what recovery found. Use `recover`."""
        self.alarms = repair.alarms
        """What recovery set aside and what lookups found damaged since, one sentence each."""
        readable = Lookup(folder, repair.files, found.kept_from, self.alarms)
        super().__init__(folder, found, readable)
        self._lock: int | None = lock
        self._rolling = rolling
        self._poison = ""
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
    ) -> Self:
        """Lock the partition's folder, made if need be, and repair what a crash left behind.

        `bound` (usages) is on disk when this returns, if it is larger than any before. Segments
        are finished at `segment_bytes` or after `segment_age` seconds.

        Raises:
            ArchiveLocked: another process writes here.
            PartitionMismatch: this is another partition, or there were more or fewer of them.
            ArchiveDamaged: only a person can tell which of two files is right.
            ArchiveFull: there is no space to recover in; nothing is lost, try again.
            SyncFailed: the process must exit.
        """
        folder = names.partition_folder(root, partition)
        with full_named(folder):
            make_folder(folder)
            lock = identity.lock(folder)
            try:
                found = identity.claim(folder, partition, partitions, bound)
                repair = Repair(folder, found)
                repair.run()
            except BaseException:
                os.close(lock)
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
            identity.write(self._folder, marked)
            self._identity = marked

    def append(self, batches: Sequence[Batch]) -> Flushed:
        """Archive batches that follow the cursor and each other, as one block, on disk.

        Raises:
            ArchiveFull: nothing was taken; the same append works when there is space.
            SyncFailed: what the disk holds is unknown; the process must exit.
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
        self._usable()
        return self._readable.find(seq)

    def close(self) -> None:
        """Finish the open segment if that is possible, and let go of the folder.

        Raises:
            SyncFailed: the disk refused; the next recovery writes the segment anew.
        """
        if self._lock is None:
            return
        try:
            if not self._poison:
                with suppress(ArchiveFull), self._changing():
                    self._finish()
        finally:
            os.close(self._lock)
            self._lock = None
            self._readable.close()

    def _usable(self) -> None:
        if self._poison:
            raise SyncFailed(self._poison)
        if self._lock is None:
            raise ArchiveError("the archive was closed")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Give failures their names. After one that leaves the disk unknown, nothing is done."""
        self._usable()
        try:
            with full_named(self._folder):
                yield
        except (SyncFailed, OSError) as error:
            self._poison = f"an earlier failure: {error}"
            raise

    def _check_next(self, first: Seq, last: Seq) -> None:
        if self.highest > self.cursor:
            raise LossSuspected(
                f"{self._folder} holds seq {self.highest}, but not all behind {self.cursor}"
            )
        if first != self.cursor + 1 or last < first:
            raise ValueError(f"seqs {first} to {last} do not follow the cursor, {self.cursor}")

    def _begin(self, first: Seq) -> Segment:
        segment = Segment(self._folder, self._identity, names.day_of(), first)
        self._readable.begin(segment)
        return segment

    def _finish(self) -> None:
        """Make the open segment a finished one; remove it if nothing was ever accepted."""
        segment = self._readable.segment
        if segment is None:
            return
        if len(segment.index) == 0:
            self._readable.close()
            segment.remove()
            return
        self._add(segment.finish())
        segment.close()

    def _add(self, file: File) -> None:
        self._readable.add(file)
        self._count()

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
            identity.write(self._folder, raised)
            self._identity = raised
            self._readable.drop(old, kept_from)
            retention.delete(self._folder, old)
        self._expired_on = today
