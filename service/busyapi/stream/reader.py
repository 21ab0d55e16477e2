"""Reads for lookups and counts, on a separate connection.

Lookups should not wait behind a batch's fsync, nor batches behind lookups.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.ids import Seq
from busyapi.stamp import Stamp, split_stamp
from busyapi.stream.connection import Command, RedisConnection, ServerError
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import BadEntry, Entry, decode_entry, parse_entry
from busyapi.stream.state import PartitionState, parse_state, state_commands

READ_TIMEOUT_SECONDS = 3.0


class BufferedUsage(NamedTuple):
    """A usage that is still in the stream."""

    received_ms: int
    line: bytes
    """The usage, without its stamp."""
    stamp: Stamp | None


class PartitionReader:
    """Reader of one partition. Many tasks may call it; a lock serializes them."""

    def __init__(self, endpoint: Endpoint, partition: int) -> None:
        self.endpoint = endpoint
        self._key_names = endpoint.key_names(partition)
        self._connection: RedisConnection | None = None
        # Protects the connection: commands and replies of two tasks must not mix.
        self._lock = asyncio.Lock()

    async def read_state(self) -> PartitionState:
        """Return the partition's record.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        return parse_state(*await self._execute(*state_commands(self._key_names)))

    async def find_usage(self, seq: Seq) -> tuple[PartitionState, BufferedUsage | None]:
        """Return the record, and a usage of the stream or None if the stream does not have it.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        record, counter, entries = await self._execute(
            *state_commands(self._key_names),
            ("XRANGE", self._key_names.stream, seq, "+", "COUNT", 1),
        )
        entry = parse_entry(*entries[0]) if entries else None
        return parse_state(record, counter), _extract_usage(entry, seq)

    async def read_entries(self, first: Seq, count: int) -> tuple[PartitionState, list[Entry]]:
        """Return the record, and the next entries of the stream that have seqs from this one on.

        The counter is read before the entries. So if there is none, every seq up to the counter is
        archived.

        Raises:
            RedisUnavailable: Redis does not reply.
        """
        record, counter, entries = await self._execute(
            *state_commands(self._key_names),
            ("XRANGE", self._key_names.stream, first, "+", "COUNT", count),
        )
        return parse_state(record, counter), [parse_entry(*entry) for entry in entries]

    async def _execute(self, *commands: Command) -> list[Any]:
        try:
            # The timeout includes the lock: on a silent server no task waits longer than the first.
            async with asyncio.timeout(READ_TIMEOUT_SECONDS), self._lock:
                return await self._execute_once(commands)
        except TimeoutError:
            raise RedisUnavailable from None

    async def _execute_once(self, commands: tuple[Command, ...]) -> list[Any]:
        # Reads are safe to retry: this one is retried, once, on a new connection.
        if self._connection and not self._connection.is_closed:
            try:
                await self.endpoint.recheck(self._connection, self._key_names.partition)
                return _require_success(await self._connection.pipeline(*commands))
            except RedisUnavailable:
                await self._connection.close()
        self._connection = await self.endpoint.connect(self._key_names.partition)
        return _require_success(await self._connection.pipeline(*commands))

    async def close(self) -> None:
        """Close the connection; the next read opens another one."""
        if self._connection:
            await self._connection.close()


async def read_record(endpoint: Endpoint, partition: int) -> PartitionState:
    """Return a partition's record, on a connection of its own.

    Raises:
        RedisUnavailable: Redis does not reply.
    """
    reader = PartitionReader(endpoint, partition)
    try:
        return await reader.read_state()
    finally:
        await reader.close()


def _require_success(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ServerError):
            raise RedisUnavailable(f"Redis refuses reads: {reply.code}")
    return replies


def _extract_usage(entry: Entry | None, seq: Seq) -> BufferedUsage | None:
    if entry is None or not entry.first <= seq <= entry.last:
        return None
    try:
        usages = decode_entry(entry)
    except BadEntry:
        return None  # the flusher quarantines it
    line, stamp = split_stamp(usages.lines[seq - entry.first])
    return BufferedUsage(usages.received_ms, line, stamp)
