"""How long a committer waits before it tries again."""

import random

MIN_SECONDS, MAX_SECONDS = 0.05, 1.0
MAX_FIRST_SECONDS = 0.1
"""The limit in the first seconds without a connection: a failover may end at any moment."""


class Backoff:
    """A wait that doubles with each failure."""

    def __init__(self) -> None:
        self._seconds = MIN_SECONDS

    def reset(self) -> None:
        """Record a success."""
        self._seconds = MIN_SECONDS

    def next_seconds(self, *, limit_is_low: bool) -> float:
        """Return how long to wait now."""
        limit = MAX_FIRST_SECONDS if limit_is_low else MAX_SECONDS
        seconds = min(self._seconds, limit)
        self._seconds = min(seconds * 2, limit)
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
