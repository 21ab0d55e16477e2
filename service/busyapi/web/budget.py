"""The memory of requests on their way into one process, and which gives way when it is short.

    receive buffer ──> body put together ──> decoded: from here on it counts as a pending usage
    └────────────── held by this connection ───┘

Pausing the reading at the bound would let one silent client stop all others. So at the bound
requests that are still arriving are answered 503 until an eighth is free again: first those that
cost most, by bytes and by the seconds for which they were held. A body that comes as fast as the
line allows outlives one that stands still, and small requests, which pass in no time, outlive both.

Bodies that are whole and wait for their turn to be decoded may hold half of it, and are refused
beyond that, since nothing would be left for those that arrive.
"""

from time import monotonic
from typing import Protocol

from busyapi.errors import Overloaded

FREE_BYTES = 8_192
"""What a connection holds up to this is not counted: the bound on connections is its bound."""
UNLIMITED_BYTES = 2**62
_MIN_AGE_SECONDS = 0.05
"""Added to each age, or what has just come would cost nothing."""


class BudgetedConnection(Protocol):
    """A connection, and what it holds."""

    buffered_bytes: int
    buffered_since: float

    def shed(self) -> bool:
        """Refuse what is arriving; say whether it could be."""


class ReceiveBudget:
    """What the requests on their way into one process may hold."""

    def __init__(self, max_bytes: int = UNLIMITED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.shed_count = 0
        self._reserved_bytes = 0
        self._connections: set[BudgetedConnection] = set()

    def update(self, connection: BudgetedConnection, size: int) -> None:
        """Write down what a connection holds now; at the bound make others give way."""
        size = size if size > FREE_BYTES else 0
        before = connection.buffered_bytes
        if size == before:
            return
        self.used_bytes += size - before
        connection.buffered_bytes = size
        if not before:
            connection.buffered_since = monotonic()
            self._connections.add(connection)
        elif not size:
            self._connections.discard(connection)
        if size > before and self.used_bytes > self.max_bytes:
            self._shed_connections()

    def reserve_body(self, size: int) -> int:
        """Count a body that is whole and not decoded; return what to give back for it.

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
        """Give back what `reserve_body` returned."""
        self._reserved_bytes -= size

    def _shed_connections(self) -> None:
        now = monotonic() + _MIN_AGE_SECONDS
        costly = sorted(
            self._connections,
            key=lambda each: each.buffered_bytes * (now - each.buffered_since),
            reverse=True,
        )
        for holder in costly:
            if self.used_bytes <= self.max_bytes - self.max_bytes // 8:
                return
            if holder.shed():
                self.shed_count += 1
                self.update(holder, 0)
