"""`busyapi sizing`: from a rate to pods, memory and disk.

Every figure is one that the benchmark measured (docs/performance.md says on what machine and with
which command); the rest is arithmetic. It is a place to start from: measure your own cluster with
the load tests before you rely on it.
"""

import argparse
import math
from typing import Any, NamedTuple

SECONDS_A_DAY = 86_400
GIB = 2**30


class Figures(NamedTuple):
    """What one usage costs, as measured: CPU in microseconds, memory and disk in bytes."""

    api_us: float
    redis_us: float
    flusher_us: float
    redis_bytes: float
    """While it waits to be archived."""
    archive_bytes: float


SINGLE = Figures(api_us=39, redis_us=6, flusher_us=2.4, redis_bytes=137, archive_bytes=13.1)
"""Posted alone; in Redis at its worst, an entry for each usage."""
BATCHED = Figures(api_us=4.4, redis_us=0.4, flusher_us=1.2, redis_bytes=90, archive_bytes=13.1)
"""In batches of 100."""

BUSY = 0.7
"""How much of a core a process is planned for: the autoscaler's target, and room for a burst."""
REDIS_ROOM = 4 / 3
"""The chart gives Valkey three quarters of its container's memory for data."""
DATA_ROOM = 1.25
"""Memory for data over what the buffer takes: fragmentation, and the rewrite of its log."""
DISK_ROOM = 1.2
FEWEST_PODS = 2


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
    flusher_cores: float
    """Of each flusher."""
    disk_gib_a_day: float
    """Of all partitions together."""
    volume_gib: float
    """Of each flusher, for the days asked for."""


def plan(
    per_minute: int, *, batched: bool, outage_minutes: int, days: int, partitions: int | None
) -> Plan:
    """Work out what a rate of usages a minute needs."""
    figures = BATCHED if batched else SINGLE
    rate = per_minute / 60
    # Redis runs its commands on one core, and so does a flusher.
    slowest = max(figures.redis_us, figures.flusher_us)
    parts = partitions or max(1, math.ceil(rate * slowest / 1e6 / BUSY))
    bound = math.ceil(per_minute * outage_minutes / parts)
    a_day = rate * SECONDS_A_DAY * figures.archive_bytes / GIB
    return Plan(
        pods=max(FEWEST_PODS, math.ceil(rate * figures.api_us / 1e6 / BUSY)),
        partitions=parts,
        bound=bound,
        redis_cores=rate / parts * figures.redis_us / 1e6,
        redis_gib=bound * figures.redis_bytes * DATA_ROOM * REDIS_ROOM / GIB,
        flusher_cores=rate / parts * figures.flusher_us / 1e6,
        disk_gib_a_day=a_day,
        volume_gib=a_day * days * DISK_ROOM / parts,
    )


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
        type=_from_one,
        default=1_000_000,
        metavar="N",
        help="usages a minute at the peak (default: %(default)s)",
    )
    parser.add_argument(
        "--batched", action="store_true", help="they come in batches of about 100, not one by one"
    )
    parser.add_argument(
        "--outage-minutes",
        type=_from_one,
        default=15,
        metavar="M",
        help="how long a flusher may be away before devices are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--days", type=_from_one, default=30, help="kept in the archive (default: %(default)s)"
    )
    parser.add_argument(
        "--partitions",
        type=_from_one,
        metavar="P",
        help="how many; the fewest that carry it if not given",
    )
    parser.set_defaults(run=_run)


def _from_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text}")
    return number


def _run(options: argparse.Namespace, _: Any) -> int:
    found = plan(
        options.per_minute,
        batched=options.batched,
        outage_minutes=options.outage_minutes,
        days=options.days,
        partitions=options.partitions,
    )
    print(render(found))  # noqa: T201 - a command's answer
    return 0


def render(found: Plan) -> str:
    """Return a plan as a person reads it, with the chart's values."""
    memory, volume = math.ceil(found.redis_gib * 1024), math.ceil(found.volume_gib)
    redis = (
        f"valkey.resources.limits.memory: {memory}Mi"
        if found.partitions == 1
        else "externalRedis.mode: cluster   (one core for each partition; a single server has one)"
    )
    return f"""\
API pods of one core      {found.pods}
partitions                {found.partitions}
CPU of Redis a partition  {found.redis_cores:.2f} cores
its memory                {memory:,} MiB
CPU of each flusher       {found.flusher_cores:.2f} cores
archive, all partitions   {found.disk_gib_a_day:.1f} GiB a day
volume of each flusher    {volume:,} GiB

values of the chart:
  autoscaling.maxReplicas: {2 * found.pods}
  config.partitions: {found.partitions}
  config.bound: {found.bound}
  flusher.persistence.size: {volume}Gi
  {redis}"""
