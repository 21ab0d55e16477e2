"""Reads for lookups and counts, on a connection of their own.

A lookup must not wait behind a batch's fsync more than it has to, nor a batch behind lookups.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.errors import RedisAway
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import BadEntry, Entry, decode, entry
from busyapi.stream.state import State, ask, parse
from busyapi.stream.wire import Command, ServerError, Wire

READ_SECONDS = 3.0


class Buffered(NamedTuple):
    """A usage that is still in the stream."""

    received_ms: int
    line: bytes


class Reader:
    """Reads one partition. Many tasks may call; a lock puts them in a row."""

    def __init__(self, endpoint: Endpoint, partition: int) -> None:
        self._endpoint = endpoint
        self._keys = endpoint.keys(partition)
        self._wire: Wire | None = None
        # Guards the wire: commands and replies of two tasks must not mix.
        self._lock = asyncio.Lock()

    async def state(self) -> State:
        """Read the partition's record.

        Raises:
            RedisAway: Redis does not answer.
        """
        return parse(*await self._call(*ask(self._keys)))

    async def usage(self, seq: Seq) -> tuple[State, Buffered | None]:
        """Look for a usage in the stream; None when it is not, or no longer, there.

        Raises:
            RedisAway: Redis does not answer.
        """
        record, counter, entries = await self._call(
            *ask(self._keys), ("XRANGE", self._keys.stream, seq, "+", "COUNT", 1)
        )
        found = entry(*entries[0]) if entries else None
        return parse(record, counter), _pick(found, seq)

    async def _call(self, *commands: Command) -> list[Any]:
        try:
            # Around the lock too: behind a silent server nobody waits longer than the first.
            async with asyncio.timeout(READ_SECONDS), self._lock:
                return await self._ask(commands)
        except TimeoutError:
            raise RedisAway from None

    async def _ask(self, commands: tuple[Command, ...]) -> list[Any]:
        # Reads may be repeated: once, on a new connection.
        if self._wire and not self._wire.closed:
            try:
                return _all_good(await self._wire.call(*commands))
            except RedisAway:
                await self._wire.close()
        self._wire = await self._endpoint.connect(self._keys.partition)
        return _all_good(await self._wire.call(*commands))

    async def close(self) -> None:
        """Close the connection."""
        if self._wire:
            await self._wire.close()


def _all_good(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ServerError):
            raise RedisAway(f"Redis refuses a read: {reply.code}")
    return replies


def _pick(found: Entry | None, seq: Seq) -> Buffered | None:
    if found is None or not found.first <= seq <= found.last:
        return None
    try:
        usages = decode(found)
    except BadEntry:
        return None  # the flusher will set it aside
    return Buffered(usages.received_ms, usages.lines[seq - found.first])
