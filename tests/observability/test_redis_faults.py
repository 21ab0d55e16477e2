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
from testkit.ports import reserve_port
from testkit.processes import Process
from testkit.waiting import wait_until

PENDING = "10"
MAX_KEYS = 10


@pytest.fixture(scope="module")
def monitored(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """Run a stack with a low limit of pending usages."""
    folder = tmp_path_factory.mktemp("faults")
    settings = {
        "BUSYAPI_PENDING_MAX": PENDING,
        "BUSYAPI_IDEMPOTENCY_KEYS": str(MAX_KEYS),
    }
    with run_monitored_stack(folder, rules, **settings) as monitored:
        yield monitored


def test_slow_redis_fires_latency_and_then_overload_alerts(monitored: MonitoredStack) -> None:
    overload = ("BusyapiOverloaded", "BusyapiAvailabilityBurn/1h")
    with ExitStack() as posting:
        with monitored.fault("BusyapiLatencyBurn/1h"):
            monitored.proxy.latency = 0.1
            posting.enter_context(monitored.load())
        with ExitStack() as more, monitored.fault(*overload):
            more.enter_context(monitored.load(connections=20))
        monitored.proxy.latency = 0.0
        monitored.prometheus.wait_until_resolved("BusyapiLatencyBurn/1h", *overload, seconds=60)


def reports_unmet_tier(process: Process) -> bool:
    """Return whether a process reports that the server does not meet the tier."""
    return process.read_metric("busyapi_durability_met") == 0


def test_server_below_its_tier_fires_durability_alerts(monitored: MonitoredStack) -> None:
    alerts = ("BusyapiDurabilityNotMet",)
    with monitored.fault(*alerts):
        monitored.server.client().config_set("appendfsync", "everysec")
        for process in monitored.stack.processes:
            wait_until(partial(reports_unmet_tier, process), f"{process} to report it", seconds=30)
    monitored.expect_quiet("BusyapiFlusherNotReady", "BusyapiRedisUnreachable")
    monitored.server.client().config_set("appendfsync", "always")
    monitored.prometheus.wait_until_resolved(*alerts)


def test_redis_near_its_memory_limit_fires_an_alert(monitored: MonitoredStack) -> None:
    client = monitored.server.client()
    with monitored.fault("BusyapiRedisMemoryHigh"):
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    client.config_set("maxmemory", 0)
    monitored.prometheus.wait_until_resolved("BusyapiRedisMemoryHigh")


def test_too_many_idempotency_keys_fire_an_alert(monitored: MonitoredStack) -> None:
    with monitored.fault("BusyapiIdempotencyKeysFilling"):
        for key in range(MAX_KEYS):
            check_stored(send(monitored.stack.port, USAGE, idempotency_key=f"key-{key}"))
        check_unavailable(send(monitored.stack.port, USAGE, idempotency_key="one-more"), "no")
        check_stored(send(monitored.stack.port, USAGE))
    monitored.flusher.environment["BUSYAPI_IDEMPOTENCY_KEYS"] = str(2 * MAX_KEYS)
    monitored.flusher.restart()
    monitored.prometheus.wait_until_resolved("BusyapiIdempotencyKeysFilling", seconds=60)


def test_lost_redis_fires_alerts_and_an_empty_one_an_epoch_jump(monitored: MonitoredStack) -> None:
    alerts = ("BusyapiRedisUnreachable",)
    with monitored.load():
        with monitored.fault(*alerts):
            monitored.server.kill9()
        monitored.expect_quiet("BusyapiFlusherNotReady", "BusyapiFlusherStuck")
        with monitored.fault("BusyapiEpochJump"):
            monitored.server.wipe()
            monitored.server.start()
        monitored.prometheus.wait_until_resolved(*alerts, "BusyapiEpochJump", seconds=40)


def test_stopped_api_processes_fire_an_alert(monitored: MonitoredStack) -> None:
    with monitored.fault("BusyapiTargetsMissing"):
        assert set(monitored.stack.stop().values()) == {0}
    monitored.stack.start()
    monitored.prometheus.wait_until_resolved("BusyapiTargetsMissing")


def test_flusher_that_cannot_reach_redis_fires_an_alert(monitored: MonitoredStack) -> None:
    """The API is still connected, so that no other alert names the cause."""
    alert = "BusyapiFlusherNotReady"
    url = monitored.flusher.environment["BUSYAPI_REDIS_URL"]
    with monitored.fault(alert):
        monitored.flusher.stop()
        monitored.flusher.environment["BUSYAPI_REDIS_URL"] = f"redis://127.0.0.1:{reserve_port()}"
        monitored.flusher.spawn()
    monitored.expect_quiet("BusyapiRedisUnreachable")
    monitored.flusher.stop()
    monitored.flusher.environment["BUSYAPI_REDIS_URL"] = url
    monitored.flusher.start()
    monitored.prometheus.wait_until_resolved(alert)
