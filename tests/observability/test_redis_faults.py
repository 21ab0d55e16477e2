"""Faults of Redis, and more load than is let in, make the alerts fire that are about them.

One stack for all, one fault after the other: each test leaves it as it was.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from testkit.api_client import USAGE, refusal, send, stored
from testkit.monitored_stack import MonitoredStack, observed
from testkit.processes import Process
from testkit.waiting import wait_until

PENDING = "10"
MOST_KEYS = 10


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """A stack that lets few usages in at a time."""
    folder = tmp_path_factory.mktemp("faults")
    settings = {
        "BUSYAPI_PENDING_MAX": PENDING,
        "BUSYAPI_IDEMPOTENCY_KEYS": str(MOST_KEYS),
    }
    with observed(folder, rules, **settings) as site:
        yield site


def test_a_slow_redis_and_then_more_load_than_is_let_in(site: MonitoredStack) -> None:
    overload = ("BusyapiOverloaded", "BusyapiAvailabilityBurn/1h")
    with ExitStack() as posting:
        with site.fault("BusyapiLatencyBurn/1h"):
            site.proxy.latency = 0.1
            posting.enter_context(site.load())
        with ExitStack() as more, site.fault(*overload):
            more.enter_context(site.load(connections=20))
        site.proxy.latency = 0.0
        site.prometheus.wait_until_resolved("BusyapiLatencyBurn/1h", *overload, seconds=60)


def finds_it_weak(process: Process) -> bool:
    """Tell whether a process knows that the server does not hold the tier."""
    return process.metric("busyapi_durability_held") == 0


def test_a_server_made_weaker_while_it_runs(site: MonitoredStack) -> None:
    alerts = ("BusyapiDurabilityNotHeld", "BusyapiPartitionNotSeeded")
    with site.fault(*alerts):
        site.server.client().config_set("appendfsync", "everysec")
        for each in site.stack.processes:
            wait_until(partial(finds_it_weak, each), f"{each} to see it", seconds=30)
    site.server.client().config_set("appendfsync", "always")
    site.prometheus.wait_until_resolved(*alerts)


def test_a_redis_that_runs_out_of_memory(site: MonitoredStack) -> None:
    client = site.server.client()
    with site.fault("BusyapiRedisMemoryHigh"):
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    client.config_set("maxmemory", 0)
    site.prometheus.wait_until_resolved("BusyapiRedisMemoryHigh")


def test_more_idempotency_keys_than_there_is_room_for(site: MonitoredStack) -> None:
    with site.fault("BusyapiIdempotencyKeysFilling"):
        for key in range(MOST_KEYS):
            stored(send(site.stack.port, USAGE, idempotency_key=f"key-{key}"))
        refusal(send(site.stack.port, USAGE, idempotency_key="one-more"), "no")
        stored(send(site.stack.port, USAGE))
    site.flusher.environment["BUSYAPI_IDEMPOTENCY_KEYS"] = str(2 * MOST_KEYS)
    site.flusher.restart()
    site.prometheus.wait_until_resolved("BusyapiIdempotencyKeysFilling", seconds=60)


def test_a_redis_that_dies_and_comes_back_empty(site: MonitoredStack) -> None:
    gone = ("BusyapiRedisUnreachable", "BusyapiPartitionNotSeeded")
    with site.load():
        with site.fault(*gone):
            site.server.kill9()
        with site.fault("BusyapiEpochJump"):
            site.server.wipe()
            site.server.start()
        site.prometheus.wait_until_resolved(*gone, "BusyapiEpochJump", seconds=40)


def test_api_processes_that_are_gone(site: MonitoredStack) -> None:
    with site.fault("BusyapiTargetsMissing"):
        assert set(site.stack.stop().values()) == {0}
    site.stack.start()
    site.prometheus.wait_until_resolved("BusyapiTargetsMissing")
