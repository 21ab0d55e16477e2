"""What one usage costs, and one Idempotency-Key, as the benchmark measured them.

Each figure is here once, with the command that measured it.
"""

from typing import NamedTuple


class UsageCost(NamedTuple):
    """What one usage costs, as measured: CPU in microseconds, memory and disk in bytes."""

    api_us: float
    redis_us: float
    flusher_us: float
    redis_bytes: float
    """While it waits to be archived."""
    log_bytes: float
    """Appended to the log of Redis, before that is written anew."""
    archive_bytes: float
    usages_per_post: int
    """Usages in one post."""


# CPU: docs/reports/performance.md, "Pinned", durable, fast path. Archive: "Fifty million usages",
# the first look, the largest. Memory and log: `python -m bench.flat --usages 50000`, an entry for
# each usage and a key for each, which is the worst case.
SINGLE_POST_COST = UsageCost(
    api_us=30.7,
    redis_us=3.3,
    flusher_us=2.2,
    redis_bytes=137,
    log_bytes=409,
    archive_bytes=13.09,
    usages_per_post=1,
)
# CPU and archive: "Fifty million usages", its first look, which has batches alone; both API
# processes. Memory and log: as above.
BATCHED_POST_COST = UsageCost(
    api_us=3.18,
    redis_us=0.63,
    flusher_us=1.51,
    redis_bytes=90,
    log_bytes=89,
    archive_bytes=13.09,
    usages_per_post=1000,
)

# An Idempotency-Key, for as long as it is known: `python -m bench.flat --usages 50000`, the most
# over several numbers of keys.
VALKEY_KEY_BYTES = 135
"""Valkey 9, for the chart's own server."""
REDIS_KEY_BYTES = 180
"""Redis 7.0, the oldest that is supported, for an external one."""
KEY_LOG_BYTES = 90
"""In a log written anew."""
KEY_WAITING_BYTES = 95
"""More memory while its usage waits to be archived."""
LOG_COPIES = 3
"""The log grows to twice its size before it is written anew, and then the new one is beside it."""
