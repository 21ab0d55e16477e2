"""The primary is found in the servers' output, also during a failover."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e import servers
from e2e.kube import Kube
from e2e.scenarios.external import count_replicas, count_roles, find_owner, find_primary, run_cli

NODES = """\
aa 10.0.0.1:6379@16379 {first} 0 1 1 connected{slots}
bb 10.0.0.2:6379@16379 master - 0 1 2 connected 5461-10922
cc 10.0.0.3:6379@16379 master - 0 1 3 connected 10923-16383
dd 10.0.0.4:6379@16379 {second} 0 1 4 connected{taken}
ee 10.0.0.5:6379@16379 slave bb 0 1 2 connected
ff 10.0.0.6:6379@16379 myself,slave cc 0 1 3 connected
"""
BEFORE = NODES.format(first="master -", slots=" 0-5460", second="slave aa", taken="")
FAILING = NODES.format(first="master,fail -", slots=" 0-5460", second="slave aa", taken="")
AFTER = NODES.format(first="slave dd", slots="", second="master -", taken=" 0-5460")


class Namespace:
    """A namespace of servers with the given output."""

    def __init__(self, output: dict[str, str]) -> None:
        self.output = output
        self.commands: list[tuple[str, ...]] = []

    def pods(self) -> list[Any]:
        return [
            SimpleNamespace(
                metadata=SimpleNamespace(name=f"redis-{n}", labels={"app": "redis"}),
                status=SimpleNamespace(
                    pod_ip=f"10.0.0.{n + 1}",
                    conditions=[SimpleNamespace(type="Ready", status="True")],
                ),
            )
            for n in range(6)
        ]

    def run(self, pod: str, *command: str, check: bool, container: str) -> bytes:
        assert (check, container) == (False, servers.SERVER)
        self.commands.append(command)
        return self.output.get(pod, "").encode()


def make_kube(output: dict[str, str]) -> Kube:
    return cast("Kube", Namespace(output))


@pytest.mark.parametrize(
    ("output", "pod", "healthy"),
    [
        (BEFORE, "redis-0", (3, 3)),
        (FAILING, "", (2, 3)),
        (AFTER, "redis-3", (3, 3)),
        ("", "", (0, 0)),
    ],
)
def test_owner_of_the_first_slots_is_found(output: str, pod: str, healthy: tuple[int, int]) -> None:
    kube = make_kube({"redis-5": output})
    assert (find_owner(kube), count_roles(kube)) == (pod, healthy)


def test_a_server_that_is_not_connected_is_not_healthy() -> None:
    lost = BEFORE.replace("0 1 2 connected 5461", "0 1 2 disconnected 5461")
    assert count_roles(make_kube({"redis-5": lost})) == (2, 3)


def test_the_majority_of_sentinels_names_the_primary() -> None:
    output = {"redis-0": "redis-0.redis\n6379\n", "redis-1": "redis-2.redis\n6379\n"}
    assert find_primary(make_kube({**output, "redis-2": "redis-2.redis\n6379\n"})) == "redis-2"
    assert find_primary(make_kube({})) == ""


def test_only_replicas_that_are_online_count() -> None:
    output = "slave0:ip=a,state=online,lag=0\nslave1:ip=b,state=wait_bgsave,lag=0\n"
    assert count_replicas(make_kube({"redis-1": output}), "redis-1") == 1
    assert count_replicas(make_kube({"redis-1": output}), "") == 0


def test_a_sentinel_is_asked_without_the_password() -> None:
    kube = Namespace({})
    run_cli(cast("Kube", kube), "redis-0", "PING", port=servers.SENTINEL_PORT)
    run_cli(cast("Kube", kube), "redis-0", "PING")
    assert [servers.PASSWORD in command for command in kube.commands] == [False, True]
