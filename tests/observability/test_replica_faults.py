"""Faults of replicas in the tier `replicated`, and the alert that each fires."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.monitored_stack import MonitoredStack, run_monitored_stack
from testkit.processes import Stack
from testkit.prometheus import Prometheus
from testkit.replicated import CONFIG
from testkit.topologies import SentinelSet


@pytest.fixture(scope="module")
def monitored(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """Run a stack with two replicas, one of which must confirm."""
    folder = tmp_path_factory.mktemp("replicas")
    settings = {"BUSYAPI_DURABILITY": "replicated", "BUSYAPI_REPLICAS": "2"}
    with run_monitored_stack(folder, rules, "8m", 2, **settings) as monitored:
        yield monitored


def test_lost_replica_fires_an_alert_while_usages_are_stored(monitored: MonitoredStack) -> None:
    with monitored.load() as load:
        with monitored.fault("BusyapiReplicasDegraded"):
            monitored.replicas[0].kill9()
        before = load.history.acknowledged
        monitored.expect_quiet("BusyapiDurabilityNotMet", "BusyapiRedisUnreachable")
        assert load.history.acknowledged > before
    monitored.replicas[0].start()
    monitored.prometheus.wait_until_resolved("BusyapiReplicasDegraded")


def test_sentinels_without_a_majority_fire_an_alert_while_the_primary_works(
    tmp_path: Path, rules: Mapping[str, Any]
) -> None:
    settings = {"BUSYAPI_DURABILITY": "replicated"}
    with (
        SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels,
        Stack(tmp_path / "stack", sentinels, settings=settings) as stack,
        Prometheus(tmp_path / "prometheus", stack, rules) as prometheus,
    ):
        prometheus.wait_until_resolved("BusyapiFailoverImpossible")
        for sentinel in sentinels.sentinels[:2]:
            sentinel.kill9()
        prometheus.wait_until_firing("BusyapiFailoverImpossible", seconds=60)
        assert all(flusher.is_ready() for flusher in stack.flushers)
