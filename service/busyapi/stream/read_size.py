"""How many bytes of the stream one reply may have.

A reply must be small for three reasons: it counts against the server's memory until it is taken, it
is in this process' memory, and the lease cannot be renewed while it arrives. So a reply should take
less than `_SLOW_SECONDS` on whatever link there is: the limit follows what the last replies took,
and begins from the bottom after one that did not arrive.
"""

MAX_ENTRIES = 512
"""Entries of one reply: each costs the server a search."""
MIN_BYTES = 1 << 16
MAX_BYTES = 1 << 20
_FAST_SECONDS = 0.1
_SLOW_SECONDS = 0.4


class ReadSizeLimit:
    """The limit for one connection's replies."""

    def __init__(self) -> None:
        self.max_bytes = MAX_BYTES // 4

    def record(self, size: int, seconds: float) -> None:
        """Learn from a reply that arrived."""
        if seconds > _SLOW_SECONDS:
            self.max_bytes = max(MIN_BYTES, self.max_bytes // 2)
        elif seconds < _FAST_SECONDS and size >= self.max_bytes // 2:
            self.max_bytes = min(MAX_BYTES, self.max_bytes * 2)

    def record_failure(self) -> None:
        """Learn from a reply that did not arrive."""
        self.max_bytes = MIN_BYTES
