"""Faults of Redis and overload fire their alerts.

All tests share one stack. Each test causes a fault and repairs it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from testkit.api_client import USAGE, check_stored, check_unavailable, send
from testkit.monitored_stack import MonitoredStack, run_monitored_stack
from testkit.processes import Process
from testkit.waiting import wait_until

PENDING = "10"
MAX_KEYS = 10


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """Run a stack with a low limit of pending usages."""
    folder = tmp_path_factory.mktemp("faults")
    settings = {
        "BUSYAPI_PENDING_MAX": PENDING,
        "BUSYAPI_IDEMPOTENCY_KEYS": str(MAX_KEYS),
    }
    with run_monitored_stack(folder, rules, **settings) as site:
        yield site


def test_slow_redis_fires_latency_and_then_overload_alerts(site: MonitoredStack) -> None:
    overload = ("BusyapiOverloaded", "BusyapiAvailabilityBurn/1h")
    with ExitStack() as posting:
        with site.fault("BusyapiLatencyBurn/1h"):
            site.proxy.latency = 0.1
            posting.enter_context(site.load())
        with ExitStack() as more, site.fault(*overload):
            more.enter_context(site.load(connections=20))
        site.proxy.latency = 0.0
        site.prometheus.wait_until_resolved("BusyapiLatencyBurn/1h", *overload, seconds=60)


def reports_weak_redis(process: Process) -> bool:
    """Return whether a process reports that the server does not meet the tier."""
    return process.read_metric("busyapi_durability_held") == 0


def test_weakened_server_fires_durability_alerts(site: MonitoredStack) -> None:
    alerts = ("BusyapiDurabilityNotHeld", "BusyapiPartitionNotSeeded")
    with site.fault(*alerts):
        site.server.client().config_set("appendfsync", "everysec")
        for process in site.stack.processes:
            wait_until(partial(reports_weak_redis, process), f"{process} to report it", seconds=30)
    site.server.client().config_set("appendfsync", "always")
    site.prometheus.wait_until_resolved(*alerts)


def test_redis_near_its_memory_limit_fires_an_alert(site: MonitoredStack) -> None:
    client = site.server.client()
    with site.fault("BusyapiRedisMemoryHigh"):
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    client.config_set("maxmemory", 0)
    site.prometheus.wait_until_resolved("BusyapiRedisMemoryHigh")


def test_too_many_idempotency_keys_fire_an_alert(site: MonitoredStack) -> None:
    with site.fault("BusyapiIdempotencyKeysFilling"):
        for key in range(MAX_KEYS):
            check_stored(send(site.stack.port, USAGE, idempotency_key=f"key-{key}"))
        check_unavailable(send(site.stack.port, USAGE, idempotency_key="one-more"), "no")
        check_stored(send(site.stack.port, USAGE))
    site.flusher.environment["BUSYAPI_IDEMPOTENCY_KEYS"] = str(2 * MAX_KEYS)
    site.flusher.restart()
    site.prometheus.wait_until_resolved("BusyapiIdempotencyKeysFilling", seconds=60)


def test_lost_redis_fires_alerts_and_an_empty_one_an_epoch_jump(site: MonitoredStack) -> None:
    alerts = ("BusyapiRedisUnreachable", "BusyapiPartitionNotSeeded")
    with site.load():
        with site.fault(*alerts):
            site.server.kill9()
        with site.fault("BusyapiEpochJump"):
            site.server.wipe()
            site.server.start()
        site.prometheus.wait_until_resolved(*alerts, "BusyapiEpochJump", seconds=40)


def test_stopped_api_processes_fire_an_alert(site: MonitoredStack) -> None:
    with site.fault("BusyapiTargetsMissing"):
        assert set(site.stack.stop().values()) == {0}
    site.stack.start()
    site.prometheus.wait_until_resolved("BusyapiTargetsMissing")
