"""From a rate of usages to a plan: arithmetic on measured costs."""

import math
from typing import NamedTuple

from busyapi.settings import MAX_BOUND_USAGES, Settings
from busyapi.sizing.costs import (
    BATCHED_POST_COST,
    KEY_LOG_BYTES,
    KEY_WAITING_BYTES,
    LOG_COPIES,
    REDIS_KEY_BYTES,
    SINGLE_POST_COST,
    VALKEY_KEY_BYTES,
    UsageCost,
)

SECONDS_A_DAY = 86_400
GIB = 2**30

# What the chart installs by itself: nothing is planned smaller.
MIN_BOUND_USAGES = 1_000_000
MIN_REDIS_GIB = 1
MIN_LOG_GIB = 8
MIN_VOLUME_GIB = 10
MIN_PODS = 2

TARGET_UTILIZATION = 0.7
"""How much of a core a process is planned for: the autoscaler's target, and room for a burst."""
REDIS_HEADROOM = 4 / 3
"""The chart gives Valkey three quarters of its container's memory for data."""
DATA_HEADROOM = 1.25
"""Memory for data over what it takes: fragmentation, and the rewrite of its log."""
DISK_HEADROOM = 1.2


class PlanRequest(NamedTuple):
    """What a plan is asked for."""

    per_minute: int
    is_batched: bool = False
    outage_minutes: int = 15
    retention_days: int = 30
    partitions: int | None = None
    """The fewest that carry it when None."""
    keyed_percent: int = 0
    """Percent of posts with an Idempotency-Key."""
    key_seconds: int = Settings.idempotency_ttl


class Plan(NamedTuple):
    """What to install."""

    pods: int
    """API pods, of one core each."""
    partitions: int
    bound: int
    """Usages that a partition may hold."""
    redis_cores: float
    """Of each partition's server, while nothing is wrong."""
    redis_gib: float
    """Memory limit of each partition's server."""
    keys: int
    """Idempotency-Keys of each partition that are known at a time."""
    log_gib: float
    """Disk of each partition's server."""
    flusher_cores: float
    """Of each flusher."""
    disk_gib_per_day: float
    """Of all partitions together."""
    volume_gib: float
    """Of each flusher, for the days asked for."""


def make_plan(request: PlanRequest) -> Plan:
    """Work out what a rate of usages a minute needs."""
    cost = BATCHED_POST_COST if request.is_batched else SINGLE_POST_COST
    rate = request.per_minute / 60
    waiting = request.per_minute * request.outage_minutes
    parts = request.partitions or _min_partitions(rate, cost, waiting)
    bound = max(MIN_BOUND_USAGES, math.ceil(waiting / parts))
    # In whole numbers, so that a round rate has a round number of keys.
    # A key is known for up to a third longer than its time.
    known = request.per_minute * request.keyed_percent * request.key_seconds * 4
    keys = -(-known // (3 * 60 * 100 * cost.usages_per_post * parts))
    waiting_keys = bound * request.keyed_percent / 100 / cost.usages_per_post
    a_day = rate * SECONDS_A_DAY * cost.archive_bytes / GIB
    return Plan(
        pods=max(MIN_PODS, math.ceil(rate * cost.api_us / 1e6 / TARGET_UTILIZATION)),
        partitions=parts,
        bound=bound,
        redis_cores=rate / parts * cost.redis_us / 1e6,
        redis_gib=max(MIN_REDIS_GIB, _memory_gib(cost, bound, keys, waiting_keys, parts)),
        keys=keys,
        log_gib=max(MIN_LOG_GIB, _log_gib(cost, bound, keys)),
        flusher_cores=rate / parts * cost.flusher_us / 1e6,
        disk_gib_per_day=a_day,
        volume_gib=max(MIN_VOLUME_GIB, a_day * request.retention_days * DISK_HEADROOM / parts),
    )


def _min_partitions(rate: float, cost: UsageCost, waiting: int) -> int:
    # Redis runs its commands on one core, and so does a flusher.
    slowest = max(cost.redis_us, cost.flusher_us)
    return max(
        math.ceil(rate * slowest / 1e6 / TARGET_UTILIZATION), math.ceil(waiting / MAX_BOUND_USAGES)
    )


def _memory_gib(cost: UsageCost, bound: int, keys: int, waiting: float, parts: int) -> float:
    key = VALKEY_KEY_BYTES if parts == 1 else REDIS_KEY_BYTES
    data = bound * cost.redis_bytes + keys * key + waiting * KEY_WAITING_BYTES
    return data * DATA_HEADROOM * REDIS_HEADROOM / GIB


def _log_gib(cost: UsageCost, bound: int, keys: int) -> float:
    # All that waits as it was appended, and beside it the log written anew, which packs it: no
    # more than it takes in memory.
    usage = cost.log_bytes + cost.redis_bytes
    return (bound * usage + keys * KEY_LOG_BYTES * LOG_COPIES) * DISK_HEADROOM / GIB
