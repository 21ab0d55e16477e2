"""How many bytes of large requests the event loop reads at a time, over all connections.

    paused ──wants more──> waiting ──its turn──> granted ──bytes arrive──> paused
                              └─── the turn's bytes are used ───┘

One read takes up to 256 kB, so 60 clients that each send a batch would take 15 MB in one iteration
of the loop, and all other clients would wait for it. Sanic pauses the reading of a connection that
holds 64 KiB. Here paused connections take turns: at MAX_BYTES_PER_TURN no other one is read until
the next iteration. All together are read at BYTES_PER_SECOND, after a burst that a few batches do
not exceed, so most of the loop's time remains for other clients.

Only paused connections get here, so a request of one packet costs nothing.
"""

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import Any, Protocol

LARGE_READ_BYTES = 16_384
"""A smaller read costs less than the request that it brings, and is not counted."""
BYTES_PER_SECOND = 250_000_000
"""Much more than is decoded in a second. Reading takes a third of the loop's time at this rate."""
BURST_BYTES = 4_194_304
RETRY_SECONDS = 0.001
"""The shortest delay that libuv knows."""
MAX_BYTES_PER_TURN = 250_000
"""One read of the largest size reaches it, and takes 0.3 ms with the copies of its bytes."""
MAX_GRANTS_PER_TURN = 16
"""More connections than are read in a turn, because the clients of some have stopped sending."""
IDLE_GRANT_BYTES = MAX_BYTES_PER_TURN // 4
"""What a connection between two requests is counted for: its next bytes may arrive at any time."""


class PausedConnection(Protocol):
    """A connection whose reading is paused."""

    transport: Any

    @property
    def is_between_requests(self) -> bool:
        """Return whether it waits for the first byte of a request."""


class ReadTurns:
    """The connections of one process that wait to be read."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[PausedConnection, None] = OrderedDict()
        self._granted: dict[PausedConnection, None] = {}
        """Connections that were resumed within a request, until their next large read."""
        self._used_bytes = 0
        self._allowed_bytes = float(BURST_BYTES)
        self._refilled_at = monotonic()
        self._turn_is_scheduled = False

    def request(self, connection: PausedConnection) -> None:
        """Resume the reading of a paused connection, in this turn or a later one."""
        self._waiting[connection] = None
        if len(self._waiting) == 1 and self._may_grant():
            self._grant_next()
        self._schedule_turn()

    def record(self, connection: PausedConnection, size: int) -> None:
        """Count a large read; if the turn's bytes are used, pause all granted connections."""
        self._granted.pop(connection, None)
        self._used_bytes += size
        # Never far below zero: other large reads must not keep paused connections waiting.
        self._allowed_bytes = max(self._allowed_bytes - size, -MAX_BYTES_PER_TURN)
        self._schedule_turn()
        if self._may_grant():
            return
        while self._granted:
            paused, _ = self._granted.popitem()
            if paused.transport and not paused.is_between_requests:
                paused.transport.pause_reading()
                self._waiting[paused] = None
                # The last one granted is the first one moved, so the order stays.
                self._waiting.move_to_end(paused, last=False)

    def remove(self, connection: PausedConnection) -> None:
        """Forget a closed connection."""
        self._waiting.pop(connection, None)
        self._granted.pop(connection, None)

    def _may_grant(self) -> bool:
        return self._used_bytes < MAX_BYTES_PER_TURN and self._allowed_bytes > 0

    def _schedule_turn(self) -> None:
        if not self._turn_is_scheduled:
            self._turn_is_scheduled = True
            loop = asyncio.get_running_loop()
            if self._allowed_bytes > 0:
                loop.call_soon(self._begin_turn)
            else:
                loop.call_later(RETRY_SECONDS, self._begin_turn)

    def _begin_turn(self) -> None:
        now = monotonic()
        refill = (now - self._refilled_at) * BYTES_PER_SECOND
        self._refilled_at = now
        self._allowed_bytes = min(BURST_BYTES, self._allowed_bytes + refill)
        self._used_bytes = 0
        self._turn_is_scheduled = False
        for _ in range(min(MAX_GRANTS_PER_TURN, len(self._waiting))):
            if not self._may_grant():
                break
            self._grant_next()
        if self._waiting or self._used_bytes:
            self._schedule_turn()

    def _grant_next(self) -> None:
        connection, _ = self._waiting.popitem(last=False)
        transport = connection.transport
        if not transport or transport.is_closing():
            return
        if connection.is_between_requests:
            self._used_bytes += IDLE_GRANT_BYTES
        else:
            self._granted[connection] = None
        transport.resume_reading()
