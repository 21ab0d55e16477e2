"""Every panel's query returns data from a Prometheus that scraped a stack under load.

`make e2e` checks the panels that need a cluster (cAdvisor, kube-state-metrics, the kubelet).
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testkit.api_client import send
from testkit.http1 import fetch
from testkit.monitored_stack import MonitoredStack, run_monitored_stack
from testkit.prometheus import NAMESPACE, RELEASE, Prometheus
from testkit.volume import fill_volume
from testkit.waiting import wait_until

DASHBOARDS = Path(__file__).parents[2] / "charts" / "busyapi" / "dashboards"
VARIABLES = {
    "$__rate_interval": "5s",
    "$__interval": "1s",
    "$__range": "30s",
    "$namespace": NAMESPACE,
    "$release": RELEASE,
    "$partition": ".*",
}
LOAD_SECONDS = 8

ON_A_CLUSTER = {
    "API pods",
    "Share of the maximum",
    "API pods: desired, current, limits",
    "Ready pods",
    "CPU",
    "CPU usage / request",
    "CPU throttled",
    "Memory",
    "Memory used of limit",
    "Restarts",
    "Volumes used",
}
"""Panels of `Autoscaling and resources` that need a cluster."""


class Query(NamedTuple):
    """A query of a panel."""

    board: str
    panel: str
    expression: str


def queries() -> Iterator[Query]:
    """Yield the queries of every dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for item in (panel, *panel.get("panels", [])):
                for target in item.get("targets", []):
                    yield Query(path.stem, item["title"], target["expr"])


LOCAL = [query for query in queries() if query.panel not in ON_A_CLUSTER]


def substitute_variables(expression: str) -> str:
    """Replace Grafana's variables by values."""
    for name in sorted(VARIABLES, key=len, reverse=True):
        expression = expression.replace(name, VARIABLES[name])
    return expression


class Loaded(NamedTuple):
    """A Prometheus, and two moments at which it had data of a stack under load."""

    prometheus: Prometheus
    moments: tuple[float, float]
    """While the stack was healthy, and while archiving was blocked."""

    def returns_data(self, expression: str) -> bool:
        """Return whether a query has a numeric sample at one of the moments or shortly before."""
        return any(
            not math.isnan(sample.value)
            for moment in self.moments
            for missed_scrapes in range(4)  # on a busy machine
            for sample in self.prometheus.query(expression, moment - missed_scrapes)
        )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]) -> Iterator[Loaded]:
    """Run a stack that stored, archived, answered and refused, with a firing alert."""
    folder = tmp_path_factory.mktemp("panels")
    settings = {
        "BUSYAPI_AUDIT": "required",
        "BUSYAPI_DURABILITY": "replicated",
        "BUSYAPI_LAKE_WAREHOUSE": str(folder / "lake"),
        "BUSYAPI_SEGMENT_AGE": "3",
        "BUSYAPI_VERIFY_INTERVAL": "2",
    }
    with run_monitored_stack(folder, rules, "8m", 1, **settings) as monitored:
        with (
            monitored.load(),
            monitored.load(connections=1, batch=10),
            monitored.load(connections=1, keys=True),
        ):
            moments = cause_all_events(monitored)
        yield Loaded(monitored.prometheus, moments)


def cause_all_events(monitored: MonitoredStack) -> tuple[float, float]:
    """Cause everything that panels show on a stack under load, and return the two moments."""
    path = "/api/usages/1"
    wait_until(lambda: fetch(monitored.stack.port, path).status == HTTPStatus.OK, "the first usage")
    for _ in range(LOAD_SECONDS * 5):
        assert fetch(monitored.stack.port, path).status == HTTPStatus.OK
        assert send(monitored.stack.port, {}).status == HTTPStatus.UNPROCESSABLE_ENTITY
        time.sleep(0.2)
    client = monitored.server.client()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    monitored.prometheus.wait_until_firing("BusyapiRedisMemoryHigh")
    healthy_at = time.time()
    # Archiving is blocked and Redis has memory again, so the backlog keeps growing.
    client.config_set("maxmemory", 0)
    fill_volume(monitored.stack.archive)
    return healthy_at, wait_until(
        lambda: filling_since(monitored), "a time until the buffer is full", seconds=60
    )


def filling_since(monitored: MonitoredStack) -> float:
    """Return the current time if the buffer is known to be filling, otherwise 0."""
    now = time.time()
    return now if monitored.prometheus.query("busyapi:buffer_left:seconds", now) else 0.0


@pytest.mark.parametrize("query", LOCAL, ids=lambda query: f"{query.board}: {query.panel}")
def test_every_panel_returns_data(loaded: Loaded, query: Query) -> None:
    expression = substitute_variables(query.expression)
    assert not re.search(r"\$\w", expression)
    assert loaded.returns_data(expression), expression


def test_query_without_data_is_found(loaded: Loaded) -> None:
    assert not loaded.returns_data("sum(rate(busyapi_nothing_total[5s]))")
    assert not loaded.returns_data("histogram_quantile(0.5, busyapi_fsync_seconds_bucket * 0)")


def test_only_panels_that_need_a_cluster_are_left_out() -> None:
    left_out = {query.panel: query.expression for query in queries() if query.panel in ON_A_CLUSTER}
    assert left_out.keys() == ON_A_CLUSTER
    for expression in left_out.values():
        assert re.search(r"\b(container|kube|kubelet)_\w+\{", expression)
