"""Generate the tables of docs/reference/sizing.md from the estimates of `busyapi sizing`."""

import math
from pathlib import Path

from busyapi.sizing.costs import (
    BATCHED_POST_COST,
    KEY_AOF_BYTES,
    KEY_WAITING_BYTES,
    REDIS_KEY_BYTES,
    SINGLE_POST_COST,
    VALKEY_KEY_BYTES,
    UsageCost,
)
from busyapi.sizing.plan import PlanRequest, make_plan

OWNED = ""
PAGE = "docs/reference/sizing.md"
MILLION = 1_000_000
START, END = "<!-- sizing -->\n", "<!-- /sizing -->"
HEAD = (
    "| usages per minute | posted | API pods | partitions | CPU of Redis, flusher per partition"
    " | Redis memory per partition | with keys | Redis disk per partition | with keys"
    " | archive per day |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def render_plans() -> str:
    """Return the table of plans, without keys and with.

    They bridge 15 minutes without a flusher and keep the archive for 30 days.
    """
    lines = []
    for millions in (1, 10, 100):
        for posted, batched in (("one by one", False), ("by the thousand", True)):
            request = PlanRequest(millions * MILLION, is_batched=batched)
            plan, keyed = make_plan(request), make_plan(request._replace(keyed_percent=100))
            lines.append(
                f"| {millions:,} million | {posted} | {plan.pods} | {plan.partitions}"
                f" | {plan.redis_cores:.2f}, {plan.flusher_cores:.2f} cores"
                f" | {plan.redis_gib:.1f} GiB | {keyed.redis_gib:.1f} GiB"
                f" | {math.ceil(plan.aof_gib)} GiB | {math.ceil(keyed.aof_gib)} GiB"
                f" | {plan.disk_gib_per_day:,.0f} GiB |\n"
            )
    return HEAD + "".join(lines)


def render_costs() -> str:
    """Return the tables of costs that the plans are computed from."""
    costs: tuple[tuple[str, UsageCost], ...] = (
        ("one by one", SINGLE_POST_COST),
        ("by the thousand", BATCHED_POST_COST),
    )
    head = (
        "| posted | API µs | Redis µs | flusher µs | bytes in Redis | bytes of its AOF"
        " | bytes in the archive |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    lines = [
        f"| {name} | " + " | ".join(f"{entry:g}" for entry in row[:-1]) + " |\n"
        for name, row in costs
    ]
    key = (
        "\n| an Idempotency-Key | bytes |\n|---|---:|\n"
        f"| memory of Valkey 9 | {VALKEY_KEY_BYTES} |\n"
        f"| memory of Redis 7.0 | {REDIS_KEY_BYTES} |\n"
        f"| more memory while its usage waits | {KEY_WAITING_BYTES} |\n"
        f"| a rewritten AOF | {KEY_AOF_BYTES} |\n"
    )
    return head + "".join(lines) + key


def update_page(page: str) -> str:
    """Return the page with new tables."""
    before, _, rest = page.partition(START)
    return before + START + render_costs() + "\n" + render_plans() + END + rest.partition(END)[2]


def render_files(root: Path) -> dict[str, str]:
    """Return the page by its path."""
    return {PAGE: update_page((root / PAGE).read_text(encoding="utf-8"))}
