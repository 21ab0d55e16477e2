"""Whether a lane has a checked connection, and if not, since when and why."""

from time import monotonic

import structlog

from busyapi.errors import NotSeeded, RedisAway, Refused, fresh

log = structlog.get_logger()

PATIENCE_SECONDS = 1.0
"""New requests wait this long for a lost connection; after that they are refused at once."""


class Standing:
    """How a lane stands with Redis; it says so in the log when that changes."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._trouble: Refused = NotSeeded()
        """Never raised, and never handed out: it lives for as long as Redis is away."""
        self._down_since: float | None = monotonic()

    @property
    def trouble(self) -> Refused:
        """Why there is no checked connection, or was none the last time: a new object."""
        return fresh(self._trouble)

    @property
    def refuses(self) -> bool:
        """Whether a new request should not even wait."""
        since = self._down_since
        return since is not None and monotonic() - since >= PATIENCE_SECONDS

    def recovered(self) -> None:
        """Take note of a checked connection."""
        if self._down_since is not None:
            log.info("lane_ready", partition=self._partition)
            self._down_since = None
        # What a usage is told that expires unsent from here on: a server that went silent.
        self._trouble = RedisAway()

    def lost(self, error: Refused) -> None:
        """Take note that there is none."""
        if self._down_since is None or str(error) != str(self._trouble):
            found = {"reason": type(error).__name__, "detail": str(error)}
            log.warning("lane_not_ready", partition=self._partition, **found)
        self._trouble = fresh(error)
        self._down_since = self._down_since or monotonic()

    def ended(self) -> None:
        """Refuse at once from here on: there will be no connection any more."""
        self._down_since = float("-inf")
