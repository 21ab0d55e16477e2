"""From stream entries to what the archive takes: in order, whole, checked."""

import asyncio
from time import monotonic

from busyapi.archive.writer import Batch, Flushed, PartitionWriter
from busyapi.errors import LossSuspected
from busyapi.ids import Seq
from busyapi.stream.entry import BadEntry, Entry, decode
from busyapi.stream.partition import Partition

FLUSH_BYTES = 1 << 20
FLUSH_SECONDS = 1.0
"""A usage waits no longer than this for others to share its fsync."""
PAUSE_SECONDS = 0.05
MOST_ENTRIES = 512


class Intake:
    """What has been read from the stream and is not in the archive yet."""

    def __init__(self, after: Seq) -> None:
        self.batches: list[Batch] = []
        self.bad: tuple[Entry, str] | None = None
        """An entry that cannot be read, behind the batches."""
        self._blocked = False
        """The stream goes on after a hole: what stands before it is flushed first."""
        self._last = after
        self._size = 0
        self._count = MOST_ENTRIES // 8
        self._since: float | None = None

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest waiting usage was received."""
        return self.batches[0].received_ms if self.batches else None

    @property
    def newest_ms(self) -> int | None:
        """When the newest waiting usage was received."""
        return self.batches[-1].received_ms if self.batches else None

    @property
    def due(self) -> bool:
        """Whether what waits should be flushed."""
        late = self._since is not None and monotonic() - self._since >= FLUSH_SECONDS
        return self.bad is not None or self._blocked or self._size >= FLUSH_BYTES or late

    async def read(self, partition: Partition, block_ms: int = 0) -> int:
        """Read once; tell how many entries came.

        Raises:
            LossSuspected: the stream lacks a seq that was given out.
        """
        entries = await partition.read(self._last, self._count, block_ms)
        for each in entries:
            self._take(each, partition.keys.partition)
            if self.bad or self._blocked:
                break
        if entries:
            self._since = self._since or monotonic()
            # One reply should be about one flush: entries may hold one usage or ten thousand.
            average = sum(len(each.value) for each in entries) // len(entries) + 1
            self._count = max(1, min(MOST_ENTRIES, FLUSH_BYTES // average))
        return len(entries)

    async def gather(self, partition: Partition, stopping: asyncio.Event) -> None:
        """Read until there is enough for a flush, or a second has passed."""
        if not self.batches and not self.bad:
            await self.read(
                partition, block_ms=0 if stopping.is_set() else int(FLUSH_SECONDS * 1000)
            )
        while self.batches and not self.due:
            # Reading at every new entry would cost Redis more than the entries do.
            if not await self.read(partition):
                if stopping.is_set():
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    def _take(self, found: Entry, partition: int) -> None:
        if found.first != self._last + 1:
            if self.batches:
                self._blocked = True
                return
            raise LossSuspected(
                f"the stream goes on at seq {found.first}, but seq {self._last + 1} comes next:"
                " entries were deleted from Redis by hand. To give them up, type: busyapi archive"
                f" accept-loss --partition {partition} --through {found.first - 1} --reason '…'"
            )
        self._last = found.last
        try:
            usages = decode(found)
        except BadEntry as error:
            self.bad = (found, str(error))
            return
        self.batches.append(Batch(found.first, found.last, usages.received_ms, usages.lines))
        self._size += len(found.value)

    async def flush(self, writer: PartitionWriter) -> tuple[int, Flushed | None]:
        """Put everything into the archive, on disk; give the number of usages, and the figures.

        If we die in here the cursor stands where the disk has it, and the rest is read again.

        Raises:
            ArchiveFull: nothing was taken; call again when there is space.
            SyncFailed: the process must exit.
        """
        usages, flushed = 0, None
        if self.batches:
            usages = self.batches[-1].last - self.batches[0].first + 1
            flushed = await asyncio.to_thread(writer.append, self.batches)
            self.batches = []
        if self.bad:
            found, why = self.bad
            await asyncio.to_thread(writer.quarantine, found.first, found.last, found.value, why)
            self.bad = None
        self._size, self._since, self._blocked = 0, None, False
        return usages, flushed


async def drain(partition: Partition, writer: PartitionWriter) -> None:
    """Archive everything that the stream holds beyond the cursor, without publishing."""
    intake = Intake(writer.cursor)
    while await intake.read(partition):
        await intake.flush(writer)
        await partition.keep_lease()
