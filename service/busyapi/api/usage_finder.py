"""Finds the partition and seq of an id, and reads the partitions' records.

An id leads to its partition by the strides that the partition had at the id's seq. They are in the
record that a lookup reads in any case, so what this process remembers is checked by each lookup.
While Redis is down it is used as it is: an archived line counts only if it has the id.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from busyapi.ids import Seq, UsageId
from busyapi.stream.reader import BufferedUsage, PartitionReader
from busyapi.stream.state import PartitionState
from busyapi.strides import Strides, find_child


class Place(NamedTuple):
    """Where an id belongs."""

    partition: int
    seq: Seq | None
    """None: no partition has issued the id."""
    is_certain: bool
    """False: this process has never read the strides of the partition."""


class UsageFinder:
    """The readers of all partitions, also of those that have left."""

    def __init__(self, open_reader: Callable[[int], PartitionReader], partitions: int) -> None:
        self._open_reader = open_reader
        self._partitions = partitions
        self._readers: dict[int, PartitionReader] = {}
        self._strides: dict[int, Strides] = {}

    @property
    def base(self) -> int:
        """Return the number of partitions at install, as far as this process knows."""
        strides = next(iter(self._strides.values()), None)
        return strides.base if strides else self._partitions

    def locate(self, usage_id: UsageId) -> Place:
        """Return where an id belongs, as far as this process knows."""
        base = self.base
        partition: int = (usage_id - 1) % base
        while strides := self._strides.get(partition):
            seq = strides.find_seq(usage_id, partition)
            child = None if seq else find_child(usage_id, partition, strides)
            if child is None:
                return Place(partition, seq, is_certain=True)
            partition = child
        guess = Strides.fixed(base).find_seq(usage_id, partition) if partition < base else None
        return Place(partition, guess, is_certain=False)

    async def find_buffered(
        self, usage_id: UsageId
    ) -> tuple[Place, PartitionState, BufferedUsage | None]:
        """Return where an id belongs, the record there, and the usage if the stream has it.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        while True:
            place = self.locate(usage_id)
            reader = self._reader(place.partition)
            state, usage = await reader.find_usage(place.seq or Seq(0))
            self._remember(place.partition, state)
            now = self.locate(usage_id)
            if (now.partition, now.seq) == (place.partition, place.seq):
                return now, state, usage

    async def read_states(self) -> list[PartitionState]:
        """Return the records of all partitions. A new one without a record is left out.

        Raises:
            RedisUnavailable: the Redis of a partition does not reply.
        """
        states = await self._read_range(0, self._partitions)
        strides = (strides.stride for strides in self._strides.values())
        states += await self._read_range(self._partitions, max(strides, default=0))
        base = self.base
        return [state for n, state in enumerate(states) if state.strides or n < base]

    async def _read_range(self, first: int, end: int) -> list[PartitionState]:
        numbers = range(first, end)
        states = await asyncio.gather(*(self._reader(n).read_state() for n in numbers))
        for number, state in zip(numbers, states, strict=True):
            self._remember(number, state)
        return states

    def _reader(self, partition: int) -> PartitionReader:
        if partition not in self._readers:
            self._readers[partition] = self._open_reader(partition)
        return self._readers[partition]

    def _remember(self, partition: int, state: PartitionState) -> None:
        known = self._strides.get(partition)
        # A server that was promoted may have an older record: strides never lose a step.
        if state.strides and not (known and known.extends(state.strides)):
            self._strides[partition] = state.strides

    async def close(self) -> None:
        """Close the connections."""
        for reader in self._readers.values():
            await reader.close()
