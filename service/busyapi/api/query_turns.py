"""Whose query runs next: in this process a client has one at a time.

So from each API process a flusher gets one query of a client at most. It has a queue of its own,
and does not know clients: one that uses more processes than the queue has places can fill it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from busyapi.errors import QueriesBusy

MAX_OF_CLIENT = 4
"""Queries of a client, with those that wait for their turn."""
MAX_QUERIES = 32
"""Of all clients. Each may hold a few megabytes of the stream."""
WAIT_SECONDS = 3.0


class QueryTurns:
    """The queries of one process."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._counts: dict[str, int] = {}

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Wait for the turn of a client's query, and hold it.

        Raises:
            QueriesBusy: too many queries are under way.
        """
        count = self._counts.get(client, 0)
        if count >= MAX_OF_CLIENT or sum(self._counts.values()) >= MAX_QUERIES:
            raise QueriesBusy
        self._counts[client] = count + 1
        lock = self._locks.setdefault(client, asyncio.Lock())
        try:
            await _acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client], self._locks[client]


async def _acquire(lock: asyncio.Lock) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await lock.acquire()
    except TimeoutError:
        raise QueriesBusy from None
