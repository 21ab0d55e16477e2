"""`busyapi sizing`: from a rate to pods, memory and disk.

Every figure is one that the benchmark measured, and stands here once, with the command it is from;
the rest is arithmetic. It is a place to start from: measure your own cluster with the load tests
before you rely on it.
"""

import argparse
import math
from typing import Any, NamedTuple

from busyapi.argument_types import whole_number
from busyapi.errors import ConfigError
from busyapi.settings import MOST_BOUND, Settings

SECONDS_A_DAY = 86_400
GIB = 2**30
MOST = 10**9
"""Of each thing asked for: more is a slip of the keyboard."""


class Figures(NamedTuple):
    """What one usage costs, as measured: CPU in microseconds, memory and disk in bytes."""

    api_us: float
    redis_us: float
    flusher_us: float
    redis_bytes: float
    """While it waits to be archived."""
    log_bytes: float
    """Appended to the log of Redis, before that is written anew."""
    archive_bytes: float
    a_post: int
    """Usages in one post."""


# CPU: docs/reports/performance.md, "Pinned", durable, fast path. Archive: "Fifty million usages",
# the first look, the largest. Memory and log: `python -m bench.flat --usages 50000`, an entry for
# each usage and a key for each, which is the worst case.
SINGLE = Figures(
    api_us=30.7,
    redis_us=3.3,
    flusher_us=2.2,
    redis_bytes=137,
    log_bytes=409,
    archive_bytes=13.09,
    a_post=1,
)
# CPU and archive: "Fifty million usages", its first look, which has batches alone; both API
# processes. Memory and log: as above.
BATCHED = Figures(
    api_us=3.18,
    redis_us=0.63,
    flusher_us=1.51,
    redis_bytes=90,
    log_bytes=89,
    archive_bytes=13.09,
    a_post=1000,
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
KEY_LOGS = 3
"""The log grows to twice its size before it is written anew, and then the new one is beside it."""

# What the chart installs by itself: nothing is planned smaller.
LEAST_BOUND = 1_000_000
LEAST_REDIS_GIB = 1
LEAST_LOG_GIB = 8
LEAST_VOLUME_GIB = 10
LEAST_MAX_REPLICAS = 10
FEWEST_PODS = 2

BUSY = 0.7
"""How much of a core a process is planned for: the autoscaler's target, and room for a burst."""
REDIS_ROOM = 4 / 3
"""The chart gives Valkey three quarters of its container's memory for data."""
DATA_ROOM = 1.25
"""Memory for data over what it takes: fragmentation, and the rewrite of its log."""
DISK_ROOM = 1.2


class Wanted(NamedTuple):
    """What a plan is asked for."""

    per_minute: int
    batched: bool = False
    outage_minutes: int = 15
    days: int = 30
    partitions: int | None = None
    """The fewest that carry it when None."""
    keyed: int = 0
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
    disk_gib_a_day: float
    """Of all partitions together."""
    volume_gib: float
    """Of each flusher, for the days asked for."""


def plan(wanted: Wanted) -> Plan:
    """Work out what a rate of usages a minute needs."""
    figures = BATCHED if wanted.batched else SINGLE
    rate = wanted.per_minute / 60
    waiting = wanted.per_minute * wanted.outage_minutes
    parts = wanted.partitions or _fewest(rate, figures, waiting)
    bound = max(LEAST_BOUND, math.ceil(waiting / parts))
    # In whole numbers, so that a round rate has a round number of keys.
    # A key is known for up to a third longer than its time.
    known = wanted.per_minute * wanted.keyed * wanted.key_seconds * 4
    keys = -(-known // (3 * 60 * 100 * figures.a_post * parts))
    waiting_keys = bound * wanted.keyed / 100 / figures.a_post
    a_day = rate * SECONDS_A_DAY * figures.archive_bytes / GIB
    return Plan(
        pods=max(FEWEST_PODS, math.ceil(rate * figures.api_us / 1e6 / BUSY)),
        partitions=parts,
        bound=bound,
        redis_cores=rate / parts * figures.redis_us / 1e6,
        redis_gib=max(LEAST_REDIS_GIB, _memory_gib(figures, bound, keys, waiting_keys, parts)),
        keys=keys,
        log_gib=max(LEAST_LOG_GIB, _log_gib(figures, bound, keys)),
        flusher_cores=rate / parts * figures.flusher_us / 1e6,
        disk_gib_a_day=a_day,
        volume_gib=max(LEAST_VOLUME_GIB, a_day * wanted.days * DISK_ROOM / parts),
    )


def _fewest(rate: float, figures: Figures, waiting: int) -> int:
    # Redis runs its commands on one core, and so does a flusher.
    slowest = max(figures.redis_us, figures.flusher_us)
    return max(math.ceil(rate * slowest / 1e6 / BUSY), math.ceil(waiting / MOST_BOUND))


def _memory_gib(figures: Figures, bound: int, keys: int, waiting: float, parts: int) -> float:
    key = VALKEY_KEY_BYTES if parts == 1 else REDIS_KEY_BYTES
    data = bound * figures.redis_bytes + keys * key + waiting * KEY_WAITING_BYTES
    return data * DATA_ROOM * REDIS_ROOM / GIB


def _log_gib(figures: Figures, bound: int, keys: int) -> float:
    # All that waits as it was appended, and beside it the log written anew, which packs it: no
    # more than it takes in memory.
    usage = figures.log_bytes + figures.redis_bytes
    return (bound * usage + keys * KEY_LOG_BYTES * KEY_LOGS) * DISK_ROOM / GIB


def add_command(commands: Any) -> None:
    """Add `sizing`."""
    parser = commands.add_parser(
        "sizing",
        help="pods, memory and disk for a rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--per-minute",
        type=whole_number(1, MOST),
        default=1_000_000,
        metavar="N",
        help="usages a minute at the peak (default: %(default)s)",
    )
    parser.add_argument(
        "--batched", action="store_true", help="they come in batches of about 1,000, not one by one"
    )
    parser.add_argument(
        "--outage-minutes",
        type=whole_number(1, MOST),
        default=15,
        metavar="M",
        help="how long a flusher may be away before devices are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--days",
        type=whole_number(1, MOST),
        default=30,
        help="kept in the archive (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=whole_number(1, MOST),
        metavar="P",
        help="how many; the fewest that carry it if not given",
    )
    parser.add_argument(
        "--keyed",
        type=whole_number(0, 100),
        default=0,
        metavar="PERCENT",
        help="of posts that have an Idempotency-Key (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    wanted = Wanted(
        per_minute=options.per_minute,
        batched=options.batched,
        outage_minutes=options.outage_minutes,
        days=options.days,
        partitions=options.partitions,
        keyed=options.keyed,
        key_seconds=settings.idempotency_ttl,
    )
    found = plan(wanted)
    if found.bound > MOST_BOUND:
        fewest = math.ceil(wanted.per_minute * wanted.outage_minutes / MOST_BOUND)
        raise ConfigError(f"a partition holds at most {MOST_BOUND:,}: --partitions from {fewest:,}")
    print(render(found, plan(wanted._replace(keyed=100))))  # noqa: T201 - a command's answer
    return 0


def render(found: Plan, keyed: Plan) -> str:
    """Return a plan as a person reads it, with the chart's values.

    `keyed` is the same when every post has an Idempotency-Key.
    """
    log, volume = math.ceil(found.log_gib), math.ceil(found.volume_gib)
    return f"""\
API pods of one core      {found.pods:,}
partitions                {found.partitions:,}
CPU of Redis a partition  {found.redis_cores:.2f} cores
its memory                {_mib(found):,} MiB, with {found.keys:,} Idempotency-Keys
                          {_mib(keyed):,} MiB if every post has a key (--keyed 100)
its disk                  {log:,} GiB, {math.ceil(keyed.log_gib):,} GiB with --keyed 100
CPU of each flusher       {found.flusher_cores:.2f} cores
archive, all partitions   {found.disk_gib_a_day:,.1f} GiB a day
volume of each flusher    {volume:,} GiB

values of the chart:
  autoscaling.maxReplicas: {max(LEAST_MAX_REPLICAS, 2 * found.pods)}
  config.partitions: {found.partitions}
  config.bound: {found.bound}
  config.idempotencyKeys: {found.keys or 0}
  flusher.persistence.size: {volume}Gi
  {_redis_values(found, log)}"""


def _redis_values(found: Plan, log: int) -> str:
    if found.partitions > 1:
        return (
            "externalRedis.mode: cluster   (one core for each partition; a single server has one)"
        )
    return f"""\
valkey.resources.limits.memory: {_mib(found)}Mi
  valkey.persistence.size: {log}Gi"""


def _mib(found: Plan) -> int:
    return math.ceil(found.redis_gib * 1024)
