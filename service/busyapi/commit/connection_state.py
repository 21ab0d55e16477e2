"""The state of a committer's connection: connected and checked, or why not and for how long."""

from time import monotonic

import structlog

from busyapi.errors import NotSeeded, PartitionPaused, RedisUnavailable, Refused, copy_error

log = structlog.get_logger()

FAILOVER_SECONDS = 10.0
"""How long a committer tries to connect at short intervals."""
RECONNECT_GRACE_SECONDS = 1.0
"""New requests wait this long for a lost connection. After that they are refused at once."""
PAUSE_GRACE_SECONDS = 5.0
"""The same for a partition whose flusher has stopped commits, and will soon allow them again."""


class ConnectionState:
    """The state of a committer's connection to Redis. Every change is logged."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._last_error: Refused = NotSeeded()
        """Never raised or returned: it stays for as long as Redis is down."""
        self._disconnected_since: float | None = monotonic()
        self.is_paused = False
        """Whether the flusher has stopped commits for a moment."""

    @property
    def last_error(self) -> Refused:
        """Return a new copy of the reason why the connection is not checked, or last was not."""
        return copy_error(self._last_error)

    def may_end_soon(self, *, was_refused: bool) -> bool:
        """Return whether the next try may succeed: a pause or a failover may be under way."""
        since = self._disconnected_since
        is_recent = since is not None and monotonic() - since < FAILOVER_SECONDS
        return self.is_paused or (is_recent and not was_refused)

    @property
    def refuses_writes(self) -> bool:
        """Return whether a new request is refused at once."""
        since = self._disconnected_since
        grace = PAUSE_GRACE_SECONDS if self.is_paused else RECONNECT_GRACE_SECONDS
        return since is not None and monotonic() - since >= grace

    def mark_connected(self) -> None:
        """Record that the connection is checked."""
        if self._disconnected_since is not None:
            log.info("redis_connected", partition=self._partition)
            self._disconnected_since = None
        # If a usage expires unsent after this, the reason is that the server stopped replying.
        self._last_error = RedisUnavailable()

    def mark_disconnected(self, error: Refused) -> None:
        """Record that there is no checked connection, and why."""
        if self._disconnected_since is None or str(error) != str(self._last_error):
            reason, detail = type(error).__name__, str(error)
            log.warning(
                "redis_disconnected", partition=self._partition, reason=reason, detail=detail
            )
        self.is_paused = isinstance(error, PartitionPaused)
        self._last_error = NotSeeded(*error.args) if self.is_paused else copy_error(error)
        self._disconnected_since = self._disconnected_since or monotonic()

    def mark_stopped(self) -> None:
        """Refuse every request at once from now on: there will be no further connection."""
        self._disconnected_since = float("-inf")
