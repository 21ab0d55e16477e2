"""When a flusher tries again, and when a problem has lasted long enough to be reported."""

from time import monotonic

from busyapi.errors import (
    ArchiveDamaged,
    ArchiveLocked,
    DurabilityNotMet,
    LossSuspected,
    PartitionMismatch,
    UnknownVersion,
)

HALTING_ERRORS = LossSuspected, PartitionMismatch, ArchiveLocked, ArchiveDamaged, UnknownVersion
"""An operator must repair these."""
HALT_RETRY_SECONDS = 3.0
RETRY_INTERVAL_SECONDS = 0.3
FIRST_INTERVAL_SECONDS = 0.05
"""The interval in the first seconds without Redis: a failover may end at any moment."""
FIRST_RETRIES = 200
LOST_SECONDS = 0.3
"""Sentinels close all connections to a server that they promote. A holder whose priority is raised
because of that must confirm until the Sentinels know that it is 0 again, even if it stops."""

SETTLED_INTERVAL_SECONDS = 5.0
"""How often unchanged replicas are inspected: their settings may be changed at any time."""
UNSETTLED_INTERVALS_SECONDS = 0.1, 1.0
UNSETTLED_LONG_SECONDS = 10.0
"""After this time the second of the two intervals applies."""


class RetryDelay:
    """The number of retries since the last success."""

    def __init__(self) -> None:
        self._retries = 0
        self._since: float | None = None

    @property
    def is_lost(self) -> bool:
        """Return whether Redis has been unavailable for longer than a closed connection takes."""
        return self._since is not None and monotonic() - self._since > LOST_SECONDS

    def reset(self) -> None:
        """Record a success."""
        self._retries, self._since = 0, None

    def next_seconds(self, error: Exception) -> float:
        """Return how long to wait after an error."""
        self._retries += 1
        self._since = self._since or monotonic()
        is_first = self._retries <= FIRST_RETRIES and not isinstance(error, DurabilityNotMet)
        return FIRST_INTERVAL_SECONDS if is_first else RETRY_INTERVAL_SECONDS


class DecisionTimer:
    """The time of the next decision about the replicas."""

    def __init__(self) -> None:
        self._unsettled_since: float | None = None
        self._next = 0.0

    @property
    def is_settled(self) -> bool:
        """Return whether the last decision has nothing to wait for."""
        return self._unsettled_since is None

    @property
    def is_due(self) -> bool:
        """Return whether the next decision is due."""
        return monotonic() >= self._next

    def record(self, *, settled: bool) -> None:
        """Record a decision."""
        now = monotonic()
        self._unsettled_since = None if settled else self._unsettled_since or now
        if self._unsettled_since is None:
            seconds = SETTLED_INTERVAL_SECONDS
        else:
            is_long = now - self._unsettled_since > UNSETTLED_LONG_SECONDS
            seconds = UNSETTLED_INTERVALS_SECONDS[is_long]
        self._next = now + seconds


class LastingProblem:
    """A problem that counts only if it lasts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def end(self) -> None:
        """Record that there is no problem."""
        self._since = None

    def has_lasted(self, problem: str) -> bool:
        """Return whether there has been a problem for long enough; "" means no problem."""
        now = monotonic()
        self._since = (self._since or now) if problem else None
        return self._since is not None and now - self._since > self._seconds
