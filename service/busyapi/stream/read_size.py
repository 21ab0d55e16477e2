"""The limit on the bytes of one reply when a flusher reads the stream.

A reply must be small for three reasons: it counts against the server's memory until the client has
received it, it occupies this process's memory, and the lease cannot be renewed while it arrives. So
a reply should take less than `_SLOW_SECONDS` on any link: the limit adapts to the duration of the
last replies, and drops to its minimum after a reply that did not arrive.
"""

MAX_ENTRIES = 512
"""Entries per reply: each costs the server a search."""
MIN_BYTES = 1 << 16
MAX_BYTES = 1 << 20
_FAST_SECONDS = 0.1
_SLOW_SECONDS = 0.4


class ReadSizeLimit:
    """The limit for the replies of one connection."""

    def __init__(self) -> None:
        self.max_bytes = MAX_BYTES // 4

    def record(self, size: int, seconds: float) -> None:
        """Adapt the limit to a reply that arrived."""
        if seconds > _SLOW_SECONDS:
            self.max_bytes = max(MIN_BYTES, self.max_bytes // 2)
        elif seconds < _FAST_SECONDS and size >= self.max_bytes // 2:
            self.max_bytes = min(MAX_BYTES, self.max_bytes * 2)

    def record_failure(self) -> None:
        """Reset the limit after a reply that did not arrive."""
        self.max_bytes = MIN_BYTES
