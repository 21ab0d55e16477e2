"""Spread partitions over two groups of servers with Sentinels, and fail one of them over."""

import time
from collections.abc import Callable
from typing import Any

from e2e import servers
from e2e.kube import wait_for
from e2e.measure import require_none_failed
from e2e.release import Release
from e2e.report import Report
from e2e.scenarios.external import (
    RATE,
    are_ready,
    count_replicas,
    find_primary,
)
from e2e.scenarios.external import make_values as make_sentinel_values
from e2e.scenarios.partition_servers import wait_until_complete
from e2e.scenarios.spread import PLACES, STEADY_SECONDS, check_loss

GROUPS = ("one", "two")
REPLICAS = 2


def make_values(release: Release) -> dict[str, Any]:
    """Return the values for two groups."""
    values = make_sentinel_values(release, "sentinel", servers.SENTINEL_PORT, REPLICAS)
    entries = [
        {
            "partitions": place,
            "hosts": [f"{group}-{n}.{servers.NAME}:{servers.SENTINEL_PORT}" for n in range(3)],
        }
        for place, group in zip(PLACES, GROUPS, strict=False)
    ]
    return values | {"externalRedis": values["externalRedis"] | {"hosts": [], "servers": entries}}


def install_groups(release: Release, report: Report) -> None:
    """Install, and post."""
    with report.row("4 partitions on two primaries with Sentinels") as row:
        release.kube.apply(*servers.make_sentinels(*GROUPS))
        wait_for(lambda: are_ready(release.kube, 3 * len(GROUPS)), "Redis and its Sentinels", 120)
        wait_for(lambda: are_replicated(release), "the replicas", 60)
        release.install(make_values(release))
        release.wait_until_routed()
        release.helm_test()
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)


def are_replicated(release: Release) -> bool:
    """Return whether the primary of each group has all of its replicas."""
    primaries = [find_primary(release.kube, group) for group in GROUPS]
    return all(count_replicas(release.kube, primary) == REPLICAS for primary in primaries)


def fail_over(release: Release, report: Report) -> None:
    """Kill the primary of the second group: the partitions of the first get the posts."""
    with report.row("one of two primaries killed, failover by its Sentinels") as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            old = find_primary(release.kube, GROUPS[1])
            killed = time.monotonic()
            release.kube.delete_pod(old, grace=0)
            wait_for(
                lambda: find_primary(release.kube, GROUPS[1]) not in {"", old}, "a primary", 60
            )
            row.notes.append(f"{old} killed, {find_primary(release.kube, GROUPS[1])} took over")
            wait_until_complete(release, row)
            wait_for(lambda: are_replicated(release), "the replicas again", 60)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_loss(release, row, load, killed)


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (install_groups, fail_over)
