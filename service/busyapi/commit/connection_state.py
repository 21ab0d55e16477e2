"""Whether a committer has a checked connection, and if not, since when and why."""

from time import monotonic

import structlog

from busyapi.errors import NotSeeded, RedisUnavailable, Refused, copy_error

log = structlog.get_logger()

RECONNECT_GRACE_SECONDS = 1.0
"""New requests wait this long for a lost connection; after that they are refused at once."""


class ConnectionState:
    """How a committer stands with Redis; it says so in the log when that changes."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._last_error: Refused = NotSeeded()
        """Never raised, and never handed out: it lives for as long as Redis is away."""
        self._disconnected_since: float | None = monotonic()

    @property
    def last_error(self) -> Refused:
        """Why there is no checked connection, or was none the last time: a new object."""
        return copy_error(self._last_error)

    @property
    def refuses_writes(self) -> bool:
        """Whether a new request should not even wait."""
        since = self._disconnected_since
        return since is not None and monotonic() - since >= RECONNECT_GRACE_SECONDS

    def mark_connected(self) -> None:
        """Take note of a checked connection."""
        if self._disconnected_since is not None:
            log.info("redis_connected", partition=self._partition)
            self._disconnected_since = None
        # What a usage is told that expires unsent from here on: a server that went silent.
        self._last_error = RedisUnavailable()

    def mark_disconnected(self, error: Refused) -> None:
        """Take note that there is none."""
        if self._disconnected_since is None or str(error) != str(self._last_error):
            found = {"reason": type(error).__name__, "detail": str(error)}
            log.warning("redis_disconnected", partition=self._partition, **found)
        self._last_error = copy_error(error)
        self._disconnected_since = self._disconnected_since or monotonic()

    def mark_stopped(self) -> None:
        """Refuse at once from here on: there will be no connection any more."""
        self._disconnected_since = float("-inf")
