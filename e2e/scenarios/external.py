"""Install on an external Redis with three Sentinels, and on a Cluster, and fail each over.

With the tier `replicated`, a 201 means that two servers have the usage, so a failover must lose
nothing.
"""

import time
from collections.abc import Callable
from typing import Any

from e2e import servers
from e2e.kube import Kube, is_ready, wait_for
from e2e.measure import require_none_failed, require_short_outage
from e2e.release import Release
from e2e.report import Report, Row
from e2e.scenarios.faults import describe_failures

RATE = 60.0
PARTITIONS = 4
"""On the Cluster, two primaries have one partition each, and the third has two."""
OUTAGE_SECONDS = 15.0
"""Two until a primary counts as down, a few for the vote, five between two checks of the API."""
LOGIN = ("valkey-cli", "-a", servers.PASSWORD, "--no-auth-warning")
SMALL: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "resources": {"requests": {"cpu": "50m"}},
    "flusher": {"persistence": {"size": "256Mi"}, "resources": {"requests": {"cpu": "20m"}}},
}


def make_values(release: Release, mode: str, port: int, replicas: int) -> dict[str, Any]:
    """Return the values for a mode. A primary waits for all of its `replicas` replicas."""
    return {
        **release.routing_values(),
        **SMALL,
        "config": {
            "durability": "replicated",
            "replicas": replicas,
            "partitions": release.partitions,
        },
        "valkey": {"enabled": False},
        "externalRedis": {
            "mode": mode,
            "hosts": [f"redis-{n}.redis:{port}" for n in range(3)],
            "masterName": servers.MASTER,
            "existingSecret": servers.SECRET,
        },
    }


def run_with_sentinels(release: Release, report: Report) -> None:
    """Install on a primary with three Sentinels, and fail over."""
    with report.row("external Redis: three Sentinels") as row:
        release.kube.apply(*servers.make_sentinels())
        wait_for(lambda: are_ready(release.kube, 3), "Redis and its Sentinels", 90)
        wait_for(
            lambda: count_replicas(release.kube, find_primary(release.kube)) == 2,
            "two replicas",
            60,
        )
        check_install(release, row, make_values(release, "sentinel", servers.SENTINEL_PORT, 2))
    with report.row("Sentinel failover") as row:
        fail_over(release, row, find_primary)
        wait_for(
            lambda: count_replicas(release.kube, find_primary(release.kube)) == 2,
            "both replicas again",
            60,
        )


def run_with_cluster(release: Release, report: Report) -> None:
    """Install on a Cluster of three primaries with replicas, and fail over."""
    with report.row("external Redis: a Cluster of three primaries") as row:
        release.kube.apply(*servers.make_cluster())
        wait_for(lambda: are_ready(release.kube, 6), "Redis", 90)
        nodes = [f"{pod.status.pod_ip}:{servers.PORT}" for pod in list_redis_pods(release.kube)]
        create = ("--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes")
        release.kube.run("redis-0", *LOGIN, *create)
        wait_for(lambda: count_roles(release.kube) == (3, 3), "three primaries, three replicas", 60)
        check_install(release, row, make_values(release, "cluster", servers.PORT, 1))
    with report.row("Cluster failover of one primary") as row:
        fail_over(release, row, find_owner)
        wait_for(lambda: count_roles(release.kube) == (3, 3), "the old primary to be a replica", 60)


def check_install(release: Release, row: Row, settings: dict[str, Any]) -> None:
    """Install, run `helm test`, then a load, and audit the archive."""
    release.install(settings)
    release.wait_until_routed()
    release.helm_test()
    with release.load(RATE) as load:
        time.sleep(5)
        row.figures = load.stop()
    row.verdict = release.audit()
    require_none_failed(row.figures)


def fail_over(release: Release, row: Row, find: Callable[[Kube], str]) -> None:
    """Kill a primary under load. Wait for a new one, and until the old one is back.

    Only a server that confirmed every commit is promoted, so no id is skipped.
    """
    with release.load(RATE) as load:
        time.sleep(3)
        old = find(release.kube)
        release.kube.delete_pod(old, grace=0)
        wait_for(lambda: find(release.kube) not in {"", old}, "another primary", 60)
        row.notes.append(f"{old} killed, {find(release.kube)} took over")
        release.kube.wait_until_settled()
        time.sleep(5)
        row.figures = load.stop()
    row.notes += describe_failures(row.figures)
    row.verdict = release.audit()
    row.notes.append(f"{row.verdict.skipped} ids skipped")
    require_short_outage(row.figures, OUTAGE_SECONDS)


def run_cli(kube: Kube, pod: str, *command: str, port: int = servers.PORT) -> str:
    """Return the output of valkey-cli."""
    login = LOGIN if port == servers.PORT else LOGIN[:1]
    words = (*login, "-p", str(port), *command)
    return kube.run(pod, *words, check=False, container=servers.SERVER).decode()


def find_primary(kube: Kube, group: str = servers.NAME) -> str:
    """Return the pod that most of the answering Sentinels of a group name as the primary."""
    names = []
    pods = [pod for pod in list_redis_pods(kube) if pod.metadata.name.startswith(f"{group}-")]
    for pod in filter(is_ready, pods):
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", servers.MASTER)
        words = run_cli(kube, pod.metadata.name, *command, port=servers.SENTINEL_PORT).split()
        names += [words[0].split(".")[0]] if words else []
    return max(set(names), key=names.count) if names else ""


def count_replicas(kube: Kube, pod: str) -> int:
    """Return how many replicas a primary has."""
    return run_cli(kube, pod, "INFO", "replication").count("state=online") if pod else 0


def find_owner(kube: Kube) -> str:
    """Return the pod of the server with the first slots, which include a partition."""
    pods = {str(pod.status.pod_ip): str(pod.metadata.name) for pod in list_redis_pods(kube)}
    for words in read_nodes(kube):
        # id, address, flags, and from the ninth word on the slots of a primary.
        if "master" in words[2] and "fail" not in words[2] and words[8:9] == ["0-5460"]:
            return pods.get(words[1].split(":")[0], "")
    return ""


def count_roles(kube: Kube) -> tuple[int, int]:
    """Return the numbers of healthy primaries and replicas."""
    good = [
        node[2] for node in read_nodes(kube) if "fail" not in node[2] and node[7] == "connected"
    ]
    return sum("master" in flags for flags in good), sum("slave" in flags for flags in good)


def read_nodes(kube: Kube) -> list[list[str]]:
    """Return the words of each line of the last server's list of nodes. It starts as a replica."""
    return [line.split() for line in run_cli(kube, "redis-5", "CLUSTER", "NODES").splitlines()]


def list_redis_pods(kube: Kube) -> list[Any]:
    """Return Redis's pods in order."""
    pods = [pod for pod in kube.pods() if pod.metadata.labels.get("app") == "redis"]
    return sorted(pods, key=lambda pod: str(pod.metadata.name))


def are_ready(kube: Kube, count: int) -> bool:
    """Return whether this number of Redis pods exists and all are ready."""
    pods = list_redis_pods(kube)
    return len(pods) == count and all(map(is_ready, pods))
