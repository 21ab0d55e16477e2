"""Turns stream entries into blocks of 1 MiB for the archive: in order, complete and checked.

Memory is bounded no matter how much waits in the stream: a reply has at most about a megabyte, or
one entry in parts, and an entry is split into lines one block at a time. So a block, and the
cursor, may end within an entry.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
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
MAX_FLUSH_WAIT_SECONDS = 1.0
"""How long a usage may wait for others to share its fsync."""
POLL_INTERVAL_SECONDS = 0.05
MAX_BLOCK_LINES = 20_000
"""Lines per block: a line takes more memory than its bytes while it is rendered."""


class FlushBuffer:
    """The usages that were read from the stream and are not in the archive yet."""

    def __init__(self, after: Seq, idempotency_keys: IdempotencyKeeper) -> None:
        self._idempotency_keys = idempotency_keys
        self.quarantined: tuple[Entry, str] | None = None
        """A damaged entry after the others, and the reason; its first seq is after the cursor."""
        self._entries: list[CheckedEntry] = []
        self._is_blocked = False
        """The next entry raises an error, but earlier entries are flushed first."""
        self._last_seq = after
        self._bytes = 0
        self._filled_since: float | None = None

    @property
    def oldest_ms(self) -> int | None:
        """Time of receipt of the oldest waiting usage."""
        return self._entries[0].received_ms if self._entries else None

    @property
    def newest_ms(self) -> int | None:
        """Time of receipt of the newest waiting usage."""
        return self._entries[-1].received_ms if self._entries else None

    @property
    def should_flush(self) -> bool:
        """Return whether the buffer should be flushed."""
        is_due = self._filled_since is not None and (
            monotonic() - self._filled_since >= MAX_FLUSH_WAIT_SECONDS
        )
        return (
            self.quarantined is not None
            or self._is_blocked
            or self._bytes >= MAX_BLOCK_BYTES
            or is_due
        )

    async def read(self, partition: OwnedPartition) -> int:
        """Read once, and return the number of entries.

        Raises:
            LossSuspected: the stream lacks an issued seq.
            UnknownVersion: the next entry was written by another version of busyapi.
            RedisUnavailable, LeaseLost, ArchiveTakenOver: as `OwnedPartition.read`.
        """
        entries = await partition.read(self._last_seq)
        for entry in entries:
            self._add(entry, partition.key_names.partition)
            if self.quarantined or self._is_blocked:
                break
        if entries:
            self._filled_since = self._filled_since or monotonic()
        return len(entries)

    async def fill(
        self,
        partition: OwnedPartition,
        stopping: asyncio.Event,
        is_interrupted: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Read until the buffer should be flushed, or a second has passed without entries.

        It ends earlier if `is_interrupted` returns true after a read.
        """
        end = monotonic() + MAX_FLUSH_WAIT_SECONDS
        while not self.should_flush and (self._entries or monotonic() < end):
            await self.read(partition)
            if is_interrupted and await is_interrupted():
                return
            if partition.reached_end and not self.should_flush:
                if stopping.is_set():
                    return
                # A read for every new entry would cost Redis more than the entry itself.
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
            await partition.renew_lease_if_due()

    def _add(self, entry: Entry, partition: int) -> None:
        after = self._last_seq
        if entry.first > after + 1:
            self._stop_at(
                LossSuspected(
                    f"the stream continues at seq {entry.first}, but seq {after + 1} is next:"
                    " somebody deleted entries from Redis. To give them up, type: busyapi"
                    f" archive accept-loss --partition {partition} --through {entry.first - 1}"
                    " --reason '…'"
                )
            )
            return
        try:
            checked = check_entry(entry)
        except BadEntry as error:
            # Its first seqs may be in the archive already, or given up by an operator.
            self.quarantined = (entry._replace(first=Seq(after + 1)), str(error))
        except UnknownVersion as error:
            self._stop_at(error)
            return
        else:
            self._entries.append(checked)
        self._last_seq = entry.last
        self._bytes += len(entry.value)

    def _stop_at(self, error: BusyapiError) -> None:
        if not self._entries:
            raise error
        self._is_blocked = True

    async def flush(
        self, writer: PartitionWriter, partition: OwnedPartition
    ) -> tuple[int, list[AppendStats]]:
        """Write everything to the archive, synced; return the number of usages and the statistics.

        If the process dies in here, the next start takes the cursor from the disk, and reads the
        rest again.

        Raises:
            ArchiveFull: call again when there is space; no usage is appended twice.
            FsyncFailed: the process must exit.
            RedisUnavailable, LeaseLost, ArchiveTakenOver: the lease could not be renewed meanwhile.
        """
        # First: if the process dies after this, Redis still has the usages.
        await self._idempotency_keys.archive_new(partition, self._last_seq)
        cursor, appends = writer.cursor, []
        for block in _make_blocks(self._entries, writer.cursor):
            append = asyncio.to_thread(writer.append, block)
            appends.append(await partition.await_with_lease(append))
        usages = writer.cursor - cursor
        self._entries = []
        if self.quarantined:
            entry, why = self.quarantined
            raw = bytes(entry.value)
            quarantine = asyncio.to_thread(writer.quarantine, entry.first, entry.last, raw, why)
            await partition.await_with_lease(quarantine)
            self.quarantined = None
        self._bytes, self._filled_since, self._is_blocked = 0, None, False
        return usages, appends


def _make_blocks(entries: list[CheckedEntry], cursor: Seq) -> Iterator[list[UsageBatch]]:
    """Yield the usages after the cursor in blocks of about MAX_BLOCK_BYTES."""
    block: list[UsageBatch] = []
    size = count = 0
    for entry in entries:
        first = Seq(max(entry.first, cursor + 1))
        for usages, number in _cut_entry(entry, first):
            if block and (size + len(usages) > MAX_BLOCK_BYTES or count + number > MAX_BLOCK_LINES):
                yield block
                block, size, count = [], 0, 0
            last = Seq(first + number - 1)
            block.append(UsageBatch(first, last, entry.received_ms, usages))
            size, count = size + len(usages), count + number
            first = Seq(last + 1)
    if block:
        yield block


def _cut_entry(entry: CheckedEntry, first: Seq) -> Iterator[tuple[bytes, int]]:
    """Yield the usages of an entry from a seq on, and their number, as much as a block may have."""
    number = entry.last - entry.first + 1
    if first == entry.first and len(entry.value) <= MAX_BLOCK_BYTES and number <= MAX_BLOCK_LINES:
        yield bytes(entry.value[entry.lines_offset :]), number
        return
    for lines in split_lines(entry, Seq(first - 1), MAX_BLOCK_BYTES, MAX_BLOCK_LINES):
        yield b"\n".join(lines), len(lines)


async def drain_stream(
    partition: OwnedPartition, writer: PartitionWriter, idempotency_keys: IdempotencyKeeper
) -> None:
    """Archive every usage of the stream after the cursor, without publishing."""
    buffer = FlushBuffer(writer.cursor, idempotency_keys)
    while await buffer.read(partition):
        await buffer.flush(writer, partition)
        await partition.renew_lease_if_due()
