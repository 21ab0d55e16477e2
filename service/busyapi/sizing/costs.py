"""The measured costs of one usage and one Idempotency-Key.

Each figure names the command that measured it.
"""

from typing import NamedTuple


class UsageCost(NamedTuple):
    """The cost of one usage: CPU in microseconds, memory and disk in bytes."""

    api_us: float
    redis_us: float
    flusher_us: float
    redis_bytes: float
    """Memory while it waits to be archived."""
    aof_bytes: float
    """Appended to the append-only file (AOF) of Redis, before that is rewritten."""
    archive_bytes: float
    usages_per_post: int
    """Usages in one post."""

    def with_body(self, body_bytes: int) -> "UsageCost":
        """Return the cost of usages of this size; shorter ones count as those that were measured.

        What a longer usage adds is proportional to its extra bytes.
        """
        extra_bytes = max(0, body_bytes - MEASURED_BODY_BYTES)
        return UsageCost(
            self.api_us + extra_bytes * BYTE_COST.api_us,
            self.redis_us + extra_bytes * BYTE_COST.redis_us,
            self.flusher_us + extra_bytes * BYTE_COST.flusher_us,
            self.redis_bytes + extra_bytes * BYTE_COST.redis_bytes,
            self.aof_bytes + extra_bytes * BYTE_COST.aof_bytes,
            self.archive_bytes + extra_bytes * BYTE_COST.archive_bytes,
            self.usages_per_post,
        )


# CPU: docs/reports/performance.md, "Pinned", durable, fast path. Archive: "Fifty million usages",
# the first sample, the largest. Memory and AOF: `python -m bench.growth --usages 50000`, with one
# entry and one key per usage, the worst case.
SINGLE_POST_COST = UsageCost(
    api_us=30.7,
    redis_us=3.3,
    flusher_us=2.2,
    redis_bytes=137,
    aof_bytes=409,
    archive_bytes=13.09,
    usages_per_post=1,
)
# CPU and archive: "Fifty million usages", its first sample, which has only batches; both
# API processes. Memory and AOF: as above.
BATCHED_POST_COST = UsageCost(
    api_us=3.18,
    redis_us=0.63,
    flusher_us=1.51,
    redis_bytes=90,
    aof_bytes=89,
    archive_bytes=13.09,
    usages_per_post=1000,
)
MEASURED_BODY_BYTES = 100
"""Bytes of the usages above, as JSON."""
# 12,000 posts of 100 bytes and of 1,100 bytes, where the extra ones are a text of random words.
# The archive's share is that of such a text: members that repeat need less, binary data more.
BYTE_COST = UsageCost(
    api_us=0.013,
    redis_us=0.009,
    flusher_us=0.009,
    redis_bytes=1.02,
    aof_bytes=1.0,
    archive_bytes=0.43,
    usages_per_post=0,
)
"""What each extra byte of a usage costs."""

# An Idempotency-Key while it is known: `python -m bench.growth --usages 50000`, the maximum over
# several numbers of keys.
VALKEY_KEY_BYTES = 135
"""With Valkey 9, the server of the chart."""
REDIS_KEY_BYTES = 180
"""With Redis 7.0, the oldest supported version, for external servers."""
KEY_AOF_BYTES = 90
"""In a rewritten AOF."""
KEY_WAITING_BYTES = 95
"""Additional memory while its usage waits to be archived."""
REPLICATED_REDIS_RATIO = 1.6
"""CPU of a primary in the tier `replicated`, with two replicas, as a multiple of that of a single
server: docs/reports/performance.md, "Three servers in the tier". A replica needs less, but may
become the primary. Memory and disk are the same on each server."""
AOF_COPIES = 3
"""The AOF grows to twice its size before it is rewritten; then the new one needs space too."""
