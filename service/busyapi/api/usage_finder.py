"""Finds the partitions that may have a usage, and reads the partitions' records.

An id leads from a partition of the install to its children, by the strides that each partition had
at the id's seq. Strides are in the record that a lookup reads in any case. After a restore from an
old backup the strides of a partition may claim ids that its child has issued: so a lookup continues
with the child until a line has the id.

BUSYAPI_REDIS_URL may name no server for a partition that never began: the stride leaves room for
more partitions than there are. It counts as a partition without a record. That is safe because a
partition does not begin before the record of its parent has a `total` above it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from busyapi.errors import NoServer, NotSeeded, RedisUnavailable
from busyapi.ids import Seq, UsageId
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import Entry
from busyapi.stream.reader import BufferedUsage, PartitionReader
from busyapi.stream.state import NO_RECORD, PartitionState
from busyapi.strides import Strides, find_child, parent_of


class Place(NamedTuple):
    """A partition that an id leads to, and what Redis has of it."""

    partition: int
    seq: Seq | None
    """None: the partition has not issued the id, as far as its strides are known."""
    state: PartitionState | None
    """None: Redis does not reply."""
    usage: BufferedUsage | None
    is_certain: bool
    """Whether the strides are known. If not, only a line that has the id says something."""

    @property
    def may_be_archived(self) -> bool:
        """Return whether to ask the archive."""
        issued = self.state.seq if self.state else None
        return self.seq is not None and (issued is None or self.seq <= issued)


class UsageFinder:
    """The readers of all partitions, also of those that have left."""

    def __init__(self, open_reader: Callable[[int], PartitionReader], partitions: int) -> None:
        self._open_reader = open_reader
        self._partitions = partitions
        self._readers: dict[int, PartitionReader] = {}
        self._strides: dict[int, Strides] = {}
        self._total = 0

    @property
    def base(self) -> int | None:
        """Return the number of partitions at install, None if this process does not know it yet."""
        strides = next(iter(self._strides.values()), None)
        return strides.base if strides else None

    async def find_places(self, usage_id: UsageId) -> AsyncIterator[Place]:
        """Yield every partition that an id leads to, in the order in which to look."""
        await self._find_base()
        if (base := self.base) is None:
            # The setting may be right, and an archived line says whether it was.
            number = (usage_id - 1) % self._partitions
            seq = Strides.fixed(self._partitions).find_seq(usage_id, number)
            yield Place(number, seq, None, None, is_certain=False)
            return
        partition: int | None = (usage_id - 1) % base
        while partition is not None:
            place = await self._read_place(partition, usage_id, base)
            yield place
            strides = self._strides.get(partition)
            partition = find_child(usage_id, partition, strides) if strides else None

    async def _find_base(self) -> None:
        unavailable: set[Endpoint] = set()
        for number in range(self._partitions):
            if self.base is not None:
                return
            if (server := self._reader(number).endpoint) not in unavailable:
                try:
                    await self.read_state(number)
                except RedisUnavailable:
                    unavailable.add(server)

    async def _read_place(self, partition: int, usage_id: UsageId, base: int) -> Place:
        while True:
            known = self._strides.get(partition)
            strides = known or (Strides.fixed(base) if partition < base else None)
            seq = strides.find_seq(usage_id, partition) if strides else None
            try:
                state, usage = await self.find_buffered(partition, seq or Seq(0))
            except RedisUnavailable:
                return Place(partition, seq, None, None, is_certain=known is not None)
            if self._strides.get(partition) == known:
                is_certain = state.strides is not None or not self._may_exist(partition)
                return Place(partition, seq, state, usage if state.strides else None, is_certain)

    async def read_state(self, partition: int) -> PartitionState:
        """Return the record of a partition.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        try:
            state = await self._reader(partition).read_state()
        except NoServer:
            return NO_RECORD
        self._remember(partition, state)
        return state

    async def find_buffered(
        self, partition: int, seq: Seq
    ) -> tuple[PartitionState, BufferedUsage | None]:
        """Return the record of a partition, and its usage with this seq if the stream has it.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        try:
            state, usage = await self._reader(partition).find_usage(seq)
        except NoServer:
            return NO_RECORD, None
        self._remember(partition, state)
        return state, usage

    async def read_entries(
        self, partition: int, first: Seq, count: int
    ) -> tuple[PartitionState, list[Entry]]:
        """Return what `PartitionReader.read_entries` returns, and raise as it does."""
        state, entries = await self._reader(partition).read_entries(first, count)
        self._remember(partition, state)
        return state, entries

    async def close_reader(self, partition: int) -> None:
        """Close the connection to a partition, so that the next read finds its server again."""
        await self._reader(partition).close()

    async def read_states(self) -> dict[int, PartitionState]:
        """Return the records of all partitions that have begun, also of those that have left.

        Raises:
            NotSeeded: a partition has no record.
            RedisUnavailable: the Redis of a partition does not reply.
        """
        states: list[PartitionState] = []
        end = self._partitions
        while len(states) < end:
            states += await asyncio.gather(*map(self.read_state, range(len(states), end)))
            end = max(end, *(strides.stride for strides in self._strides.values()), 0)
        if any(self._may_exist(n) for n, state in enumerate(states) if not state.strides):
            raise NotSeeded
        return {number: state for number, state in enumerate(states) if state.strides}

    def _may_exist(self, partition: int) -> bool:
        """Return whether a partition without a record has begun, or begins at any moment."""
        base = self.base
        if base is None or partition < base or partition in self._strides:
            return True
        if partition >= self._total:
            return False
        parent = parent_of(partition, base)
        strides = self._strides.get(parent) if parent is not None else None
        return strides is not None and strides.stride > partition

    def _reader(self, partition: int) -> PartitionReader:
        if partition not in self._readers:
            self._readers[partition] = self._open_reader(partition)
        return self._readers[partition]

    def _remember(self, partition: int, state: PartitionState) -> None:
        known = self._strides.get(partition)
        # A server that was promoted may have an older record: strides never lose a step.
        if state.strides and not (known and known.extends(state.strides)):
            self._strides[partition] = state.strides
        self._total = max(self._total, state.total)

    async def close(self) -> None:
        """Close the connections."""
        for reader in self._readers.values():
            await reader.close()
