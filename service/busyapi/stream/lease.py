"""Watching the lease of another flusher: is it still renewed?

A flusher that is alive renews its lease at least once a second. One that is silent for longer than
`STALE_SECONDS` has ended, or sleeps: its lease may be replaced, and it finds that out at its next
step. Two clocks can tell: the server's, by the time that the lease has left, and this process' own,
since the last renewal that it saw. A step of the server's clock can end a lease too early. That
costs the owner a recovery and no usage, because each of its steps names its token.
"""

LEASE_TTL_SECONDS = 10.0
"""A flusher of another archive waits for the end of it."""
RENEW_INTERVAL_SECONDS = 0.7
"""A flusher renews its lease when it is older than this: at least once a second."""
STALE_SECONDS = 2.0
_RENEWAL_THRESHOLD_SECONDS = 0.2
"""More than the answer of a server varies by."""


class LeaseObserver:
    """What one flusher has seen of another one's lease."""

    def __init__(self) -> None:
        self._value = ""
        self._ends = 0.0
        self._since = 0.0

    def is_stale(self, value: str, left_seconds: float, now: float, patience: float) -> bool:
        """Return whether the owner of this value has not renewed it for so many seconds."""
        ends = now + left_seconds
        if value != self._value or ends > self._ends + _RENEWAL_THRESHOLD_SECONDS:
            self._value, self._ends, self._since = value, ends, now
        by_server = 0 <= left_seconds <= LEASE_TTL_SECONDS - patience
        return by_server or now - self._since >= patience
