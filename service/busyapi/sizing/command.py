"""Estimate pods, memory and disk for a rate of usages.

The benchmark measured each cost; the rest is arithmetic. The result is a starting point: run the
load tests on your own cluster before you rely on it.
"""

import argparse
import math
from typing import Any

from busyapi.argument_types import whole_number
from busyapi.errors import ConfigError
from busyapi.output import write_output
from busyapi.settings import MAX_BOUND_USAGES, Settings
from busyapi.sizing.costs import MEASURED_BODY_BYTES
from busyapi.sizing.plan import MIN_NODES, Plan, PlanRequest, make_plan, plan_node_room

MAX_INPUT = 10**9
"""Maximum of each argument: a larger one is a typing error."""
MAX_BODY_BYTES = 10**7
"""Maximum of --body-bytes. One entry of the stream must fit into memory several times."""
MIN_MAX_REPLICAS = 10


def add_command(commands: Any) -> None:
    """Add the command `sizing`."""
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
        help="usages per minute at the peak (default: %(default)s)",
    )
    parser.add_argument(
        "--batched",
        action="store_true",
        help="usages arrive in batches of about 1,000, not one by one",
    )
    parser.add_argument(
        "--outage-minutes",
        type=whole_number(1, MAX_INPUT),
        default=15,
        metavar="M",
        help="time that a flusher may be down before posts are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--days",
        type=whole_number(1, MAX_INPUT),
        default=30,
        help="retention of the archive in days (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=whole_number(1, MAX_INPUT),
        metavar="P",
        help="number of partitions (default: the fewest that suffice)",
    )
    parser.add_argument(
        "--keyed",
        type=whole_number(0, 100),
        default=0,
        metavar="PERCENT",
        help="share of posts with an Idempotency-Key (default: %(default)s)",
    )
    parser.add_argument(
        "--body-bytes",
        type=whole_number(1, MAX_BODY_BYTES),
        default=MEASURED_BODY_BYTES,
        metavar="B",
        help="mean size of one usage as JSON, also in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--servers",
        type=int,
        choices=(1, 3, 5, 7),
        default=1,
        help="Redis servers of each partition, a primary and its replicas: with more than one, the"
        " tier `replicated`. Not the number of servers that the partitions are spread over"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--nodes",
        type=whole_number(MIN_NODES, MAX_INPUT),
        default=3,
        metavar="N",
        help="nodes that the pods may run on, of which one may be lost (default: %(default)s)",
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
        body_bytes=options.body_bytes,
        servers=options.servers,
    )
    plan = make_plan(request)
    if plan.bound > MAX_BOUND_USAGES:
        fewest = math.ceil(request.per_minute * request.outage_minutes / MAX_BOUND_USAGES)
        raise ConfigError(
            f"a partition can hold at most {MAX_BOUND_USAGES:,} usages: set --partitions to"
            f" {fewest:,} or more"
        )
    if plan.partitions == 1 and plan.servers > options.nodes:
        raise ConfigError(
            f"each of the {plan.servers} servers of the bundled Valkey needs a node of its own: set"
            f" --nodes to {plan.servers} or more"
        )
    keyed = make_plan(request._replace(keyed_percent=100))
    write_output(render_plan(plan, keyed, options.nodes) + "\n")
    return 0


def render_plan(plan: Plan, keyed: Plan, nodes: int) -> str:
    """Return a plan as text, with the values of the chart.

    `keyed` is the plan for the same rate where each post has an Idempotency-Key.
    """
    aof_gib, volume = math.ceil(plan.aof_gib), math.ceil(plan.volume_gib)
    total = f"; {plan.partitions * plan.servers:,} in all" if plan.partitions > 1 else ""
    room, label = plan_node_room(plan, nodes), f"room on each of {nodes:,} nodes"
    return f"""\
API pods of one core        {plan.pods:,}
partitions                  {plan.partitions:,}
Redis servers per partition {plan.servers}, each with the CPU, memory and disk below{total}
Redis CPU per partition     {plan.redis_cores:.2f} cores
Redis memory per partition  {_mib(plan):,} MiB, with {plan.keys:,} Idempotency-Keys
                            {_mib(keyed):,} MiB if every post has a key (--keyed 100)
Redis disk per partition    {aof_gib:,} GiB, {math.ceil(keyed.aof_gib):,} GiB with --keyed 100
CPU of each flusher         {plan.flusher_cores:.2f} cores
archive, all partitions     {plan.disk_gib_per_day:,.1f} GiB per day
volume of each flusher      {volume:,} GiB
{label:<26}  {room.cores:.1f} cores, {room.memory_gib:.1f} GiB; one may be lost

values of the chart:
  autoscaling.maxReplicas: {max(MIN_MAX_REPLICAS, 2 * plan.pods)}
  config.partitions: {plan.partitions}
  config.bound: {plan.bound}
  config.idempotencyKeys: {plan.keys or 0}
  flusher.persistence.size: {volume}Gi
  {_render_redis_values(plan, aof_gib)}"""


def _render_redis_values(plan: Plan, aof_gib: int) -> str:
    if plan.partitions > 1:
        replicas = f" with {plan.servers - 1} replicas" if plan.servers > 1 else ""
        tier = "config.durability: replicated\n  " if plan.servers > 1 else ""
        return (
            f"{tier}externalRedis.mode: cluster   (a primary{replicas} for each partition;"
            " or externalRedis.servers names them)"
        )
    replicas = f"valkey.replicas: {plan.servers}\n  " if plan.servers > 1 else ""
    return f"""\
{replicas}valkey.resources.limits.memory: {_mib(plan)}Mi
  valkey.persistence.size: {aof_gib}Gi"""


def _mib(plan: Plan) -> int:
    return math.ceil(plan.redis_gib * 1024)
