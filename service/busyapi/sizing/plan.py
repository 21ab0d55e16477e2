"""Calculates a plan from a rate of usages and the measured costs."""

import math
from typing import NamedTuple

from busyapi.settings import MAX_BOUND_USAGES, Settings
from busyapi.sizing.costs import (
    AOF_COPIES,
    BATCHED_POST_COST,
    KEY_AOF_BYTES,
    KEY_WAITING_BYTES,
    MEASURED_BODY_BYTES,
    REDIS_KEY_BYTES,
    REPLICATED_REDIS_RATIO,
    SINGLE_POST_COST,
    VALKEY_KEY_BYTES,
    UsageCost,
)

SECONDS_A_DAY = 86_400
GIB = 2**30

# The defaults of the chart: no plan is smaller.
MIN_BOUND_USAGES = 1_000_000
MIN_REDIS_GIB = 1
MIN_AOF_GIB = 8
MIN_VOLUME_GIB = 10
MIN_PODS = 2

TARGET_UTILIZATION = 0.7
"""Planned share of a core: the autoscaler's target, with room for a burst."""
REDIS_HEADROOM = 4 / 3
"""In the chart, data gets three quarters of the memory of the Valkey container."""
DATA_HEADROOM = 1.25
"""Memory for data, for fragmentation and the rewrite of the AOF."""
DISK_HEADROOM = 1.2
POD_GIB = 0.5
"""The chart's memory limit of an API pod and of a flusher."""
MIN_NODES = 2


class PlanRequest(NamedTuple):
    """The input of a plan."""

    per_minute: int
    is_batched: bool = False
    outage_minutes: int = 15
    retention_days: int = 30
    partitions: int | None = None
    """None: the fewest that suffice."""
    keyed_percent: int = 0
    """Share of posts with an Idempotency-Key, in percent."""
    key_seconds: int = Settings.idempotency_ttl
    body_bytes: int = MEASURED_BODY_BYTES
    """Bytes of one usage as JSON."""
    servers: int = 1
    """Redis servers for each partition: with more than one, the tier `replicated`."""


class Plan(NamedTuple):
    """Sizes to install."""

    pods: int
    """API pods, of one core each."""
    partitions: int
    bound: int
    """Maximum of usages in a partition."""
    redis_cores: float
    """CPU of each partition's server in normal operation."""
    redis_gib: float
    """Memory limit of each partition's server."""
    keys: int
    """Idempotency-Keys known at a time, per partition."""
    aof_gib: float
    """Disk of each partition's server."""
    flusher_cores: float
    """CPU of each flusher."""
    disk_gib_per_day: float
    """Of all partitions."""
    volume_gib: float
    """Of each flusher, for the retention."""
    servers: int = 1
    """Redis servers for each partition, of the same size."""


class NodeRoom(NamedTuple):
    """What each node must have free, so that the others can take the pods of one."""

    cores: float
    memory_gib: float


def plan_node_room(plan: Plan, nodes: int) -> NodeRoom:
    """Return the room on each of several nodes of which one may be lost.

    The bundled Valkey is counted; the nodes of a Redis Cluster are not. A node has room for the
    largest pod, because a pod cannot be split.
    """
    bundled = plan.partitions == 1
    redis_cores = plan.redis_cores / TARGET_UTILIZATION if bundled else 0
    redis_gib = plan.redis_gib if bundled else 0
    servers = plan.servers if bundled else 0
    flusher_cores = plan.flusher_cores / TARGET_UTILIZATION
    cores = plan.pods + servers * redis_cores + plan.partitions * flusher_cores
    memory = plan.pods * POD_GIB + servers * redis_gib + plan.partitions * POD_GIB
    remaining = nodes - 1
    return NodeRoom(max(1, cores / remaining), max(POD_GIB, redis_gib, memory / remaining))


def make_plan(request: PlanRequest) -> Plan:
    """Return the plan for a request."""
    cost = BATCHED_POST_COST if request.is_batched else SINGLE_POST_COST
    cost = cost.with_body(request.body_bytes)
    if request.servers > 1:
        cost = cost._replace(redis_us=cost.redis_us * REPLICATED_REDIS_RATIO)
    rate = request.per_minute / 60
    waiting = request.per_minute * request.outage_minutes
    parts = request.partitions or _min_partitions(rate, cost, waiting)
    bound = max(MIN_BOUND_USAGES, math.ceil(waiting / parts))
    # A key is known for up to a third longer than its TTL. The arithmetic uses whole numbers, so
    # that a round rate gives a round number of keys.
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
        aof_gib=max(MIN_AOF_GIB, _aof_gib(cost, bound, keys)),
        flusher_cores=rate / parts * cost.flusher_us / 1e6,
        disk_gib_per_day=a_day,
        volume_gib=max(MIN_VOLUME_GIB, a_day * request.retention_days * DISK_HEADROOM / parts),
        servers=request.servers,
    )


def _min_partitions(rate: float, cost: UsageCost, waiting: int) -> int:
    # Redis and a flusher each use one core.
    slowest = max(cost.redis_us, cost.flusher_us)
    return max(
        math.ceil(rate * slowest / 1e6 / TARGET_UTILIZATION), math.ceil(waiting / MAX_BOUND_USAGES)
    )


def _memory_gib(cost: UsageCost, bound: int, keys: int, waiting: float, parts: int) -> float:
    key = VALKEY_KEY_BYTES if parts == 1 else REDIS_KEY_BYTES
    data = bound * cost.redis_bytes + keys * key + waiting * KEY_WAITING_BYTES
    return data * DATA_HEADROOM * REDIS_HEADROOM / GIB


def _aof_gib(cost: UsageCost, bound: int, keys: int) -> float:
    # All waiting usages as appended, plus the rewritten AOF, which packs them: no more than their
    # size in memory.
    usage = cost.aof_bytes + cost.redis_bytes
    return (bound * usage + keys * KEY_AOF_BYTES * AOF_COPIES) * DISK_HEADROOM / GIB
