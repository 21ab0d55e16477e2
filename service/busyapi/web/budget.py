"""The memory of requests that one process is receiving, and which request is shed at the limit.

    receive buffer ──> complete body ──> decoded: from here on it counts as a pending usage
    └──────── counted here ───────────┘

If reading were paused at the limit, one silent client could stop all others. So at the limit,
requests that are still arriving get 503 until an eighth of the budget is free: first those with the
highest cost, which is bytes times the seconds for which they were held. So a body that arrives at
the speed of the network outlives one that has stalled, and a small request, which arrives at once,
outlives both.

Complete bodies that wait to be decoded may hold half of the budget. Beyond that they are refused,
since no budget would be left for requests that are arriving.
"""

from time import monotonic
from typing import Protocol

from busyapi.errors import Overloaded

FREE_BYTES = 8_192
"""Bytes of a connection that are not counted: the limit of connections bounds them."""
UNLIMITED_BYTES = 2**62
_MIN_AGE_SECONDS = 0.05
"""Added to each age: without it, a request that has just arrived would have no cost."""


class BudgetedConnection(Protocol):
    """A connection and the bytes that it holds."""

    buffered_bytes: int
    buffered_since: float

    def shed(self) -> bool:
        """Refuse the arriving request; return whether there was one to refuse."""


class ReceiveBudget:
    """The bytes that the requests of one process may hold until they are decoded."""

    def __init__(self, max_bytes: int = UNLIMITED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.shed_count = 0
        self._reserved_bytes = 0
        self._connections: set[BudgetedConnection] = set()

    def update(self, connection: BudgetedConnection, size: int) -> None:
        """Record the bytes of a connection; at the limit, shed the most costly requests."""
        size = size if size > FREE_BYTES else 0
        previous = connection.buffered_bytes
        if size == previous:
            return
        self.used_bytes += size - previous
        connection.buffered_bytes = size
        if not previous:
            connection.buffered_since = monotonic()
            self._connections.add(connection)
        elif not size:
            self._connections.discard(connection)
        if size > previous and self.used_bytes > self.max_bytes:
            self._shed_connections()

    def reserve_body(self, size: int) -> int:
        """Count a complete body that waits to be decoded; return the bytes to release for it.

        Raises:
            Overloaded: such bodies hold half of the budget.
        """
        if size <= FREE_BYTES:
            return 0
        if self._reserved_bytes and self._reserved_bytes + size > self.max_bytes // 2:
            raise Overloaded
        self._reserved_bytes += size
        return size

    def release_body(self, size: int) -> None:
        """Release the bytes that `reserve_body` returned."""
        self._reserved_bytes -= size

    def _shed_connections(self) -> None:
        now = monotonic() + _MIN_AGE_SECONDS
        by_cost = sorted(
            self._connections,
            key=lambda connection: connection.buffered_bytes * (now - connection.buffered_since),
            reverse=True,
        )
        for connection in by_cost:
            if self.used_bytes <= self.max_bytes - self.max_bytes // 8:
                return
            if connection.shed():
                self.shed_count += 1
                self.update(connection, 0)
