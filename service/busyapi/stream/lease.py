"""Detects whether another flusher still renews its lease.

A live flusher renews its lease at least once a second. A flusher that is silent for longer than
`STALE_SECONDS` has ended or sleeps: its lease may be replaced, which it notices at its next step.
Two clocks can show the silence: the server's, by the lease's remaining TTL, and this process's
own, since the last renewal that it observed. A step of the server's clock can end a lease too
early. That costs the owner a recovery but no usage, because every script checks the owner's token.
"""

LEASE_TTL_SECONDS = 10.0
"""A flusher of another archive waits until the lease expires."""
RENEW_INTERVAL_SECONDS = 0.7
"""The age at which a flusher renews its lease, so that it does so at least once a second."""
STALE_SECONDS = 2.0
"""The silence after which a flusher of the same archive replaces a lease."""
_RENEWAL_THRESHOLD_SECONDS = 0.2
"""More than the jitter of a server's reply."""


class LeaseObserver:
    """What one flusher has observed of another one's lease."""

    def __init__(self) -> None:
        self._value = ""
        self._ends = 0.0
        self._since = 0.0

    def is_stale(self, value: str, ttl_seconds: float, now: float, stale_seconds: float) -> bool:
        """Return whether this value's owner has not renewed the lease for `stale_seconds`."""
        ends = now + ttl_seconds
        if value != self._value or ends > self._ends + _RENEWAL_THRESHOLD_SECONDS:
            self._value, self._ends, self._since = value, ends, now
        is_stale_by_server = 0 <= ttl_seconds <= LEASE_TTL_SECONDS - stale_seconds
        return is_stale_by_server or now - self._since >= stale_seconds
