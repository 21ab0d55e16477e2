"""From stream entries to what the archive takes: in order, whole, checked, in blocks of 1 MiB.

Memory is bounded whatever waits in the stream: a reply has at most about a megabyte, or one entry
in parts; an entry is split into lines a block at a time. So a block may end within an entry, and so
may the cursor.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic

from busyapi.archive.writer import Batch, Flushed, PartitionWriter
from busyapi.errors import BusyapiError, LossSuspected, UnknownVersion
from busyapi.flusher.keys import KeyKeeper
from busyapi.ids import Seq
from busyapi.stream.entry import BadEntry, Checked, Entry, check, pieces
from busyapi.stream.partition import Partition

FLUSH_BYTES = 1 << 20
FLUSH_SECONDS = 1.0
"""A usage waits no longer than this for others to share its fsync."""
PAUSE_SECONDS = 0.05
BLOCK_LINES = 10_000
"""Lines of one block: a line takes more than its bytes while it is rendered."""


class Intake:
    """What has been read from the stream and is not in the archive yet."""

    def __init__(self, after: Seq, keys: KeyKeeper) -> None:
        self._keys = keys
        self.bad: tuple[Entry, str] | None = None
        """An entry that cannot be read, behind the others; it begins behind the cursor."""
        self._entries: list[Checked] = []
        self._blocked = False
        """The stream cannot be followed: what was read before is flushed first."""
        self._last = after
        self._size = 0
        self._since: float | None = None

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest waiting usage was received."""
        return self._entries[0].received_ms if self._entries else None

    @property
    def newest_ms(self) -> int | None:
        """When the newest waiting usage was received."""
        return self._entries[-1].received_ms if self._entries else None

    @property
    def due(self) -> bool:
        """Whether what waits should be flushed."""
        late = self._since is not None and monotonic() - self._since >= FLUSH_SECONDS
        return self.bad is not None or self._blocked or self._size >= FLUSH_BYTES or late

    async def read(self, partition: Partition) -> int:
        """Read once; tell how many entries came.

        Raises:
            LossSuspected: the stream lacks a seq that was given out.
            UnknownVersion: the next entry was written by another version of busyapi.
            RedisAway, LeaseLost, ArchiveTaken: as `Partition.read`.
        """
        entries = await partition.read(self._last)
        for each in entries:
            self._take(each, partition.keys.partition)
            if self.bad or self._blocked:
                break
        if entries:
            self._since = self._since or monotonic()
        return len(entries)

    async def gather(self, partition: Partition, stopping: asyncio.Event) -> None:
        """Read until there is enough for a flush, or a second has passed."""
        end = monotonic() + FLUSH_SECONDS
        while not self.due and (self._entries or monotonic() < end):
            # Reading at every new entry would cost Redis more than the entries do.
            if not await self.read(partition):
                if stopping.is_set():
                    return
                await asyncio.sleep(PAUSE_SECONDS)
            await partition.renew_if_due()

    def _take(self, found: Entry, partition: int) -> None:
        after = self._last
        if found.first > after + 1:
            self._stop_at(
                LossSuspected(
                    f"the stream goes on at seq {found.first}, but seq {after + 1} comes next:"
                    " entries were deleted from Redis by hand. To give them up, type: busyapi"
                    f" archive accept-loss --partition {partition} --through {found.first - 1}"
                    " --reason '…'"
                )
            )
            return
        try:
            checked = check(found)
        except BadEntry as error:
            # The first of its seqs may be in the archive, or given up by a person.
            self.bad = (found._replace(first=Seq(after + 1)), str(error))
        except UnknownVersion as error:
            self._stop_at(error)
            return
        else:
            self._entries.append(checked)
        self._last = found.last
        self._size += len(found.value)

    def _stop_at(self, error: BusyapiError) -> None:
        if not self._entries:
            raise error
        self._blocked = True

    async def flush(
        self, writer: PartitionWriter, partition: Partition
    ) -> tuple[int, list[Flushed]]:
        """Put everything into the archive, on disk; give the number of usages, and the figures.

        If we die in here the cursor stands where the disk has it, and the rest is read again.

        Raises:
            ArchiveFull: call again when there is space; what was taken is not taken twice.
            SyncFailed: the process must exit.
            RedisAway, LeaseLost, ArchiveTaken: the lease could not be renewed meanwhile.
        """
        # First: if we die behind it, Redis still has the usages.
        await self._keys.archive(partition, self._last)
        before, flushed = writer.cursor, []
        for block in _blocks(self._entries, writer.cursor):
            append = asyncio.to_thread(writer.append, block)
            flushed.append(await partition.while_renewing(append))
        usages = writer.cursor - before
        self._entries = []
        if self.bad:
            found, why = self.bad
            raw = bytes(found.value)
            put = asyncio.to_thread(writer.quarantine, found.first, found.last, raw, why)
            await partition.while_renewing(put)
            self.bad = None
        self._size, self._since, self._blocked = 0, None, False
        return usages, flushed


def _blocks(entries: list[Checked], cursor: Seq) -> Iterator[list[Batch]]:
    """Cut what lies behind the cursor into blocks of about FLUSH_BYTES."""
    block: list[Batch] = []
    size = count = 0
    for each in entries:
        first = Seq(max(each.first, cursor + 1))
        for lines in pieces(each, Seq(first - 1), FLUSH_BYTES, BLOCK_LINES):
            length = sum(map(len, lines))
            if block and (size + length > FLUSH_BYTES or count + len(lines) > BLOCK_LINES):
                yield block
                block, size, count = [], 0, 0
            last = Seq(first + len(lines) - 1)
            block.append(Batch(first, last, each.received_ms, lines))
            size, count = size + length, count + len(lines)
            first = Seq(last + 1)
    if block:
        yield block


async def drain(partition: Partition, writer: PartitionWriter, keys: KeyKeeper) -> None:
    """Archive everything that the stream holds beyond the cursor, without publishing."""
    intake = Intake(writer.cursor, keys)
    while await intake.read(partition):
        await intake.flush(writer, partition)
        await partition.renew_if_due()
