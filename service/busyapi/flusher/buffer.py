"""From stream entries to what the archive takes: in order, whole, checked, in blocks of 1 MiB.

Memory is bounded whatever waits in the stream: a reply has at most about a megabyte, or one entry
in parts; an entry is split into lines a block at a time. So a block may end within an entry, and so
may the cursor.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic

from busyapi.archive.block_builder import AppendStats
from busyapi.archive.format import UsageBatch
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import BusyapiError, LossSuspected, UnknownVersion
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.ids import Seq
from busyapi.stream.entry import BadEntry, CheckedEntry, Entry, check_entry, split_lines
from busyapi.stream.partition import OwnedPartition

MAX_BLOCK_BYTES = 1 << 20
FLUSH_SECONDS = 1.0
"""A usage waits no longer than this for others to share its fsync."""
POLL_INTERVAL_SECONDS = 0.05
MAX_BLOCK_LINES = 10_000
"""Lines of one block: a line takes more than its bytes while it is rendered."""


class FlushBuffer:
    """What has been read from the stream and is not in the archive yet."""

    def __init__(self, after: Seq, keys: IdempotencyKeeper) -> None:
        self._keys = keys
        self.quarantined: tuple[Entry, str] | None = None
        """An entry that cannot be read, behind the others; it begins behind the cursor."""
        self._entries: list[CheckedEntry] = []
        self._is_blocked = False
        """The stream cannot be followed: what was read before is flushed first."""
        self._last_seq = after
        self._bytes = 0
        self._filled_since: float | None = None

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest waiting usage was received."""
        return self._entries[0].received_ms if self._entries else None

    @property
    def newest_ms(self) -> int | None:
        """When the newest waiting usage was received."""
        return self._entries[-1].received_ms if self._entries else None

    @property
    def should_flush(self) -> bool:
        """Whether what waits should be flushed."""
        late = self._filled_since is not None and monotonic() - self._filled_since >= FLUSH_SECONDS
        return (
            self.quarantined is not None
            or self._is_blocked
            or self._bytes >= MAX_BLOCK_BYTES
            or late
        )

    async def read(self, partition: OwnedPartition) -> int:
        """Read once; tell how many entries came.

        Raises:
            LossSuspected: the stream lacks a seq that was given out.
            UnknownVersion: the next entry was written by another version of busyapi.
            RedisUnavailable, LeaseLost, ArchiveTakenOver: as `OwnedPartition.read`.
        """
        entries = await partition.read(self._last_seq)
        for each in entries:
            self._add(each, partition.keys.partition)
            if self.quarantined or self._is_blocked:
                break
        if entries:
            self._filled_since = self._filled_since or monotonic()
        return len(entries)

    async def fill(self, partition: OwnedPartition, stopping: asyncio.Event) -> None:
        """Read until there is enough for a flush, or a second has passed."""
        end = monotonic() + FLUSH_SECONDS
        while not self.should_flush and (self._entries or monotonic() < end):
            # Reading at every new entry would cost Redis more than the entries do.
            if not await self.read(partition):
                if stopping.is_set():
                    return
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
            await partition.renew_lease_if_due()

    def _add(self, found: Entry, partition: int) -> None:
        after = self._last_seq
        if found.first > after + 1:
            self._stop_at(
                LossSuspected(
                    f"the stream continues at seq {found.first}, but seq {after + 1} comes next:"
                    " entries were deleted from Redis by hand. To give them up, type: busyapi"
                    f" archive accept-loss --partition {partition} --through {found.first - 1}"
                    " --reason '…'"
                )
            )
            return
        try:
            checked = check_entry(found)
        except BadEntry as error:
            # The first of its seqs may be in the archive, or given up by a person.
            self.quarantined = (found._replace(first=Seq(after + 1)), str(error))
        except UnknownVersion as error:
            self._stop_at(error)
            return
        else:
            self._entries.append(checked)
        self._last_seq = found.last
        self._bytes += len(found.value)

    def _stop_at(self, error: BusyapiError) -> None:
        if not self._entries:
            raise error
        self._is_blocked = True

    async def flush(
        self, writer: PartitionWriter, partition: OwnedPartition
    ) -> tuple[int, list[AppendStats]]:
        """Put everything into the archive, on disk; give the number of usages, and the figures.

        If we die in here the cursor stands where the disk has it, and the rest is read again.

        Raises:
            ArchiveFull: call again when there is space; what was taken is not taken twice.
            FsyncFailed: the process must exit.
            RedisUnavailable, LeaseLost, ArchiveTakenOver: the lease could not be renewed meanwhile.
        """
        # First: if we die behind it, Redis still has the usages.
        await self._keys.archive_new(partition, self._last_seq)
        before, flushed = writer.cursor, []
        for block in _make_blocks(self._entries, writer.cursor):
            append = asyncio.to_thread(writer.append, block)
            flushed.append(await partition.await_with_lease(append))
        usages = writer.cursor - before
        self._entries = []
        if self.quarantined:
            found, why = self.quarantined
            raw = bytes(found.value)
            put = asyncio.to_thread(writer.quarantine, found.first, found.last, raw, why)
            await partition.await_with_lease(put)
            self.quarantined = None
        self._bytes, self._filled_since, self._is_blocked = 0, None, False
        return usages, flushed


def _make_blocks(entries: list[CheckedEntry], cursor: Seq) -> Iterator[list[UsageBatch]]:
    """Cut what lies behind the cursor into blocks of about MAX_BLOCK_BYTES."""
    block: list[UsageBatch] = []
    size = count = 0
    for each in entries:
        first = Seq(max(each.first, cursor + 1))
        for lines in split_lines(each, Seq(first - 1), MAX_BLOCK_BYTES, MAX_BLOCK_LINES):
            length = sum(map(len, lines))
            if block and (size + length > MAX_BLOCK_BYTES or count + len(lines) > MAX_BLOCK_LINES):
                yield block
                block, size, count = [], 0, 0
            last = Seq(first + len(lines) - 1)
            block.append(UsageBatch(first, last, each.received_ms, lines))
            size, count = size + length, count + len(lines)
            first = Seq(last + 1)
    if block:
        yield block


async def drain_stream(
    partition: OwnedPartition, writer: PartitionWriter, keys: IdempotencyKeeper
) -> None:
    """Archive everything that the stream holds beyond the cursor, without publishing."""
    buffer = FlushBuffer(writer.cursor, keys)
    while await buffer.read(partition):
        await buffer.flush(writer, partition)
        await partition.renew_lease_if_due()
