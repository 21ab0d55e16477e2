"""External Redis, three Sentinels and a Cluster of three primaries: the smoke, and one failover.

`replicated` is the tier that a failover must not cost anything: a 201 then means two disks.
"""

import time
from collections.abc import Callable
from typing import Any

from e2e import servers
from e2e.kube import Kube, ready, wait_for
from e2e.measure import Broken, answered_again, none_failed
from e2e.release import Release
from e2e.report import Report, Row
from e2e.scenarios.faults import failures

RATE = 60.0
PARTITIONS = 4
"""Of the Cluster: each of its primaries has one, one has two."""
OUTAGE_SECONDS = 30.0
"""Two until a primary is called down, some for the vote, five between two looks of the service."""
LOGIN = ("valkey-cli", "-a", servers.PASSWORD, "--no-auth-warning")
SMALL: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "resources": {"requests": {"cpu": "50m"}},
    "flusher": {"persistence": {"size": "256Mi"}, "resources": {"requests": {"cpu": "20m"}}},
}


def values(site: Release, mode: str, port: int, replicas: int) -> dict[str, Any]:
    """Values for one of the two; a primary has `replicas` replicas, and waits for all of them."""
    return {
        **site.routes(),
        **SMALL,
        "config": {
            "durability": "replicated",
            "replicas": replicas,
            "partitions": site.partitions,
        },
        "valkey": {"enabled": False},
        "externalRedis": {
            "mode": mode,
            "hosts": [f"redis-{n}.redis:{port}" for n in range(3)],
            "masterName": servers.MASTER,
            "existingSecret": servers.SECRET,
        },
    }


def with_sentinels(site: Release, report: Report) -> None:
    """Three Sentinels over one primary."""
    with report.row("external Redis: three Sentinels") as row:
        site.kube.apply(*servers.sentinels())
        wait_for(lambda: whole(site.kube, 3), "Redis and its Sentinels", 90)
        wait_for(lambda: replicas(site.kube, primary(site.kube)) == 2, "two replicas", 60)
        smoke(site, row, values(site, "sentinel", servers.SENTINEL_PORT, 2))
    with report.row("Sentinel failover") as row:
        fail_over(site, row, primary)
        wait_for(lambda: replicas(site.kube, primary(site.kube)) == 2, "both replicas again", 60)


def with_cluster(site: Release, report: Report) -> None:
    """A Cluster of three primaries and their replicas."""
    with report.row("external Redis: a Cluster of three primaries") as row:
        site.kube.apply(*servers.cluster())
        wait_for(lambda: whole(site.kube, 6), "Redis", 90)
        nodes = [f"{pod.status.pod_ip}:{servers.PORT}" for pod in redis(site.kube)]
        create = ("--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes")
        site.kube.run("redis-0", *LOGIN, *create)
        wait_for(lambda: roles(site.kube) == (3, 3), "three primaries, three replicas", 60)
        smoke(site, row, values(site, "cluster", servers.PORT, 1))
    with report.row("Cluster failover of one primary") as row:
        fail_over(site, row, owner)
        wait_for(lambda: roles(site.kube) == (3, 3), "the old primary to be a replica", 60)


def smoke(site: Release, row: Row, settings: dict[str, Any]) -> None:
    """Install, helm test, load, audit."""
    site.install(settings)
    site.wait_routed()
    site.helm_test()
    with site.load(RATE) as load:
        time.sleep(5)
        row.figures = load.stop()
    row.verdict = site.audit()
    none_failed(row.figures)


def fail_over(site: Release, row: Row, who: Callable[[Kube], str]) -> None:
    """Kill a primary under load, until another has taken its place and the old one is back."""
    with site.load(RATE) as load:
        time.sleep(3)
        old = who(site.kube)
        site.kube.delete_pod(old, grace=0)
        wait_for(lambda: who(site.kube) not in {"", old}, "another primary", 60)
        row.notes.append(f"{old} killed, {who(site.kube)} took over")
        site.kube.wait_settled()
        time.sleep(5)
        row.figures = load.stop()
    row.notes += failures(row.figures)
    row.verdict = site.audit(failover=True)
    row.notes.append(f"{row.verdict.skipped} ids jumped over")
    if not row.verdict.skipped:
        raise Broken("ids did not jump: no flusher took the new primary for another server")
    answered_again(row.figures, OUTAGE_SECONDS)


def cli(kube: Kube, pod: str, *command: str, port: int = servers.PORT) -> str:
    """Return what valkey-cli prints."""
    login = LOGIN if port == servers.PORT else LOGIN[:1]
    words = (*login, "-p", str(port), *command)
    return kube.run(pod, *words, check=False, container=servers.SERVER).decode()


def primary(kube: Kube) -> str:
    """The pod that the Sentinels call the primary: most of those that answer."""
    names = []
    for pod in filter(ready, redis(kube)):
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", servers.MASTER)
        words = cli(kube, pod.metadata.name, *ask, port=servers.SENTINEL_PORT).split()
        names += [words[0].split(".")[0]] if words else []
    return max(set(names), key=names.count) if names else ""


def replicas(kube: Kube, pod: str) -> int:
    """Return how many replicas a primary has."""
    return cli(kube, pod, "INFO", "replication").count("state=online") if pod else 0


def owner(kube: Kube) -> str:
    """The pod whose server has the first slots: one of the partitions is among them."""
    pods = {str(pod.status.pod_ip): str(pod.metadata.name) for pod in redis(kube)}
    for words in known(kube):
        # id, address, flags, and from the ninth word on what slots a primary has.
        if "master" in words[2] and "fail" not in words[2] and words[8:9] == ["0-5460"]:
            return pods.get(words[1].split(":")[0], "")
    return ""


def roles(kube: Kube) -> tuple[int, int]:
    """Return the numbers of healthy primaries and replicas."""
    good = [node[2] for node in known(kube) if "fail" not in node[2] and node[7] == "connected"]
    return sum("master" in sample for sample in good), sum("slave" in sample for sample in good)


def known(kube: Kube) -> list[list[str]]:
    """Return the last server's list of nodes, in words; it starts as a replica."""
    return [line.split() for line in cli(kube, "redis-5", "CLUSTER", "NODES").splitlines()]


def redis(kube: Kube) -> list[Any]:
    """Redis's pods in order."""
    pods = [pod for pod in kube.pods() if pod.metadata.labels.get("app") == "redis"]
    return sorted(pods, key=lambda pod: str(pod.metadata.name))


def whole(kube: Kube, count: int) -> bool:
    """Return whether all of them are ready."""
    pods = redis(kube)
    return len(pods) == count and all(map(ready, pods))
