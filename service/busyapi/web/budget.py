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
UNBOUNDED = 2**62
_FRESH_SECONDS = 0.05
"""Added to each age, or what has just come would cost nothing."""


class Holder(Protocol):
    """A connection, and what it holds."""

    held_bytes: int
    held_since: float

    def give_way(self) -> bool:
        """Refuse what is arriving; say whether it could be."""


class Budget:
    """What the requests on their way into one process may hold."""

    def __init__(self, most: int = UNBOUNDED) -> None:
        self.most = most
        self.used = 0
        self.given_way = 0
        self._whole = 0
        self._holders: set[Holder] = set()

    def hold(self, holder: Holder, size: int) -> None:
        """Write down what a connection holds now; at the bound make others give way."""
        size = size if size > FREE_BYTES else 0
        before = holder.held_bytes
        if size == before:
            return
        self.used += size - before
        holder.held_bytes = size
        if not before:
            holder.held_since = monotonic()
            self._holders.add(holder)
        elif not size:
            self._holders.discard(holder)
        if size > before and self.used > self.most:
            self._shrink()

    def wait_whole(self, size: int) -> int:
        """Count a body that is whole and not decoded; return what to give back for it.

        Raises:
            Overloaded: such bodies hold half of the budget.
        """
        if size <= FREE_BYTES:
            return 0
        if self._whole and self._whole + size > self.most // 2:
            raise Overloaded
        self._whole += size
        return size

    def decoded(self, size: int) -> None:
        """Give back what `wait_whole` returned."""
        self._whole -= size

    def _shrink(self) -> None:
        now = monotonic() + _FRESH_SECONDS
        costly = sorted(
            self._holders, key=lambda each: each.held_bytes * (now - each.held_since), reverse=True
        )
        for holder in costly:
            if self.used <= self.most - self.most // 8:
                return
            if holder.give_way():
                self.given_way += 1
                self.hold(holder, 0)
