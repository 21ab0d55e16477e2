"""`busyapi sizing`: from a rate to pods, memory and disk.

Every figure is one that the benchmark measured, and stands here once, with the command it is from;
the rest is arithmetic. It is a place to start from: measure your own cluster with the load tests
before you rely on it.
"""

import argparse
import math
from typing import Any

from busyapi.argument_types import whole_number
from busyapi.errors import ConfigError
from busyapi.settings import MAX_BOUND_USAGES, Settings
from busyapi.sizing.plan import Plan, PlanRequest, make_plan

MAX_INPUT = 10**9
"""Of each thing asked for: more is a slip of the keyboard."""
MIN_MAX_REPLICAS = 10


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
        type=whole_number(1, MAX_INPUT),
        default=1_000_000,
        metavar="N",
        help="usages a minute at the peak (default: %(default)s)",
    )
    parser.add_argument(
        "--batched", action="store_true", help="they come in batches of about 1,000, not one by one"
    )
    parser.add_argument(
        "--outage-minutes",
        type=whole_number(1, MAX_INPUT),
        default=15,
        metavar="M",
        help="how long a flusher may be away before devices are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--days",
        type=whole_number(1, MAX_INPUT),
        default=30,
        help="kept in the archive (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=whole_number(1, MAX_INPUT),
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
    request = PlanRequest(
        per_minute=options.per_minute,
        is_batched=options.batched,
        outage_minutes=options.outage_minutes,
        retention_days=options.days,
        partitions=options.partitions,
        keyed_percent=options.keyed,
        key_seconds=settings.idempotency_ttl,
    )
    found = make_plan(request)
    if found.bound > MAX_BOUND_USAGES:
        fewest = math.ceil(request.per_minute * request.outage_minutes / MAX_BOUND_USAGES)
        raise ConfigError(
            f"a partition holds at most {MAX_BOUND_USAGES:,}: --partitions from {fewest:,}"
        )
    print(render_plan(found, make_plan(request._replace(keyed_percent=100))))  # noqa: T201 - a command's answer
    return 0


def render_plan(plan: Plan, keyed: Plan) -> str:
    """Return a plan as a person reads it, with the chart's values.

    `keyed_percent` is the same when every post has an Idempotency-Key.
    """
    log, volume = math.ceil(plan.log_gib), math.ceil(plan.volume_gib)
    return f"""\
API pods of one core      {plan.pods:,}
partitions                {plan.partitions:,}
CPU of Redis a partition  {plan.redis_cores:.2f} cores
its memory                {_mib(plan):,} MiB, with {plan.keys:,} Idempotency-Keys
                          {_mib(keyed):,} MiB if every post has a key (--keyed 100)
its disk                  {log:,} GiB, {math.ceil(keyed.log_gib):,} GiB with --keyed 100
CPU of each flusher       {plan.flusher_cores:.2f} cores
archive, all partitions   {plan.disk_gib_per_day:,.1f} GiB a day
volume of each flusher    {volume:,} GiB

values of the chart:
  autoscaling.maxReplicas: {max(MIN_MAX_REPLICAS, 2 * plan.pods)}
  config.partitions: {plan.partitions}
  config.bound: {plan.bound}
  config.idempotencyKeys: {plan.keys or 0}
  flusher.persistence.size: {volume}Gi
  {_render_redis_values(plan, log)}"""


def _render_redis_values(plan: Plan, log: int) -> str:
    if plan.partitions > 1:
        return (
            "externalRedis.mode: cluster   (one core for each partition; a single server has one)"
        )
    return f"""\
valkey.resources.limits.memory: {_mib(plan)}Mi
  valkey.persistence.size: {log}Gi"""


def _mib(plan: Plan) -> int:
    return math.ceil(plan.redis_gib * 1024)
