"""Every panel's query gives data on a Prometheus that scraped a loaded stack.

What only a cluster has (cAdvisor, kube-state-metrics, the kubelet) is named here, and is asked for
on one in `make e2e`.
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
from testkit.monitored_stack import MonitoredStack, observed
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
    "CPU used of request",
    "CPU throttled",
    "Memory",
    "Memory used of limit",
    "Restarts",
    "Volumes used",
}
"""Panels of `Autoscaling and resources`."""


class Query(NamedTuple):
    """One query of one panel."""

    board: str
    panel: str
    expression: str


def queries() -> Iterator[Query]:
    """Give those of every dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for each in (panel, *panel.get("panels", [])):
                for target in each.get("targets", []):
                    yield Query(path.stem, each["title"], target["expr"])


HERE = [each for each in queries() if each.panel not in ON_A_CLUSTER]


def filled_in(expression: str) -> str:
    """Put values in place of Grafana's variables."""
    for name in sorted(VARIABLES, key=len, reverse=True):
        expression = expression.replace(name, VARIABLES[name])
    return expression


class Loaded(NamedTuple):
    """A Prometheus, and moments at which it knew a stack under load."""

    prometheus: Prometheus
    moments: tuple[float, float]
    """While all went well, and while nothing could be archived."""

    def gives_data(self, expression: str) -> bool:
        """Tell whether a query has a sample that is a number, then or in the seconds before."""
        return any(
            not math.isnan(each.value)
            for moment in self.moments
            for missed in range(4)  # scrapes, on a busy machine
            for each in self.prometheus.query(expression, moment - missed)
        )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]) -> Iterator[Loaded]:
    """A stack that has stored, archived, answered and refused, with an alert that fires."""
    folder = tmp_path_factory.mktemp("panels")
    with observed(folder, rules, BUSYAPI_SEGMENT_AGE="3") as site:
        with site.load(), site.load(connections=1, batch=10), site.load(connections=1, keys=True):
            moments = everything_happens(site)
        yield Loaded(site.prometheus, moments)


def everything_happens(site: MonitoredStack) -> tuple[float, float]:
    """Make a stack under load do what panels show; give the moments."""
    path = "/api/usages/1"
    wait_until(lambda: fetch(site.stack.port, path).status == HTTPStatus.OK, "the first usage")
    for _ in range(LOAD_SECONDS * 5):
        assert fetch(site.stack.port, path).status == HTTPStatus.OK
        assert send(site.stack.port, {}).status == HTTPStatus.UNPROCESSABLE_ENTITY
        time.sleep(0.2)
    client = site.server.client()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    site.prometheus.wait_until_firing("BusyapiRedisMemoryHigh")
    well = time.time()
    # Nothing is archived and Redis has room again: what waits grows for as long as anybody looks.
    client.config_set("maxmemory", 0)
    fill_volume(site.stack.archive)
    return well, wait_until(lambda: filling(site), "a time until the buffer is full", seconds=60)


def filling(site: MonitoredStack) -> float:
    """Return the moment, if it is known now when the buffer will be full; else 0."""
    now = time.time()
    return now if site.prometheus.query("busyapi:buffer_left:seconds", now) else 0.0


@pytest.mark.parametrize("query", HERE, ids=lambda each: f"{each.board}: {each.panel}")
def test_every_panel_gives_data(loaded: Loaded, query: Query) -> None:
    expression = filled_in(query.expression)
    assert not re.search(r"\$\w", expression)
    assert loaded.gives_data(expression), expression


def test_a_panel_that_reads_what_there_is_not_is_found(loaded: Loaded) -> None:
    assert not loaded.gives_data("sum(rate(busyapi_nothing_total[5s]))")
    assert not loaded.gives_data("histogram_quantile(0.5, busyapi_fsync_seconds_bucket * 0)")


def test_what_only_a_cluster_has_is_all_that_is_left_out() -> None:
    left_out = {each.panel: each.expression for each in queries() if each.panel in ON_A_CLUSTER}
    assert left_out.keys() == ON_A_CLUSTER
    for expression in left_out.values():
        assert re.search(r"\b(container|kube|kubelet)_\w+\{", expression)
