"""External Redis, three Sentinels and a Cluster of three primaries: the smoke, and one failover.

`replicated` is the tier that a failover must not cost anything: a 201 then means two disks.
"""

import time
from collections.abc import Callable
from typing import Any

from tests.cluster import servers
from tests.cluster.kube import Kube, ready, wait_for
from tests.cluster.measure import answered_again
from tests.cluster.report import Report, Row
from tests.cluster.scenarios.disturb import failures
from tests.cluster.site import Site

RATE = 60.0
OUTAGE_SECONDS = 60.0
LOGIN = ("valkey-cli", "-a", servers.PASSWORD, "--no-auth-warning")


def external(site: Site, mode: str, port: int) -> dict[str, Any]:
    """Values for one of the two."""
    return {
        **site.routes(),
        "config": {"durability": "replicated", "partitions": site.partitions},
        "valkey": {"enabled": False},
        "externalRedis": {
            "mode": mode,
            "hosts": [f"redis-{n}.redis:{port}" for n in range(3)],
            "masterName": servers.MASTER,
            "existingSecret": servers.SECRET,
        },
    }


def with_sentinels(site: Site, report: Report) -> None:
    """Three Sentinels over one primary."""
    with report.row("external Redis: three Sentinels") as row:
        site.kube.apply(*servers.sentinels())
        wait_for(lambda: _up(site.kube, 3), "Redis and its Sentinels", 90)
        wait_for(lambda: replicas(site.kube) == 2, "two replicas", 60)
        smoke(site, row, external(site, "sentinel", servers.SENTINEL_PORT))
    with report.row("Sentinel failover") as row:
        fail_over(site, row, lambda: primary(site.kube))


def with_cluster(site: Site, report: Report) -> None:
    """A Cluster of three primaries and their replicas."""
    with report.row("external Redis: a Cluster of three primaries") as row:
        site.kube.apply(*servers.cluster())
        wait_for(lambda: _up(site.kube, 6), "Redis", 90)
        pods = {p.metadata.name: p.status.pod_ip for p in site.kube.pods() if _redis(p)}
        nodes = [f"{pods[name]}:{servers.PORT}" for name in sorted(pods)]
        create = ("--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes")
        site.kube.run("redis-0", *LOGIN, *create, container="server")
        wait_for(lambda: "cluster_state:ok" in cli(site.kube, "redis-0", "CLUSTER", "INFO"), "it")
        smoke(site, row, external(site, "cluster", servers.PORT))
    with report.row("Cluster failover of one primary") as row:
        fail_over(site, row, lambda: owner(site.kube))


def smoke(site: Site, row: Row, values: dict[str, Any]) -> None:
    """Install, helm test, load, audit."""
    site.install(values)
    site.wait_routed()
    site.helm_test()
    with site.load(RATE) as load:
        time.sleep(5)
        row.figures = load.stop()
    row.verdict = site.audit()
    answered_again(row.figures, 5)


def fail_over(site: Site, row: Row, who: Callable[[], str]) -> None:
    """Kill a primary under load, until another has taken its place and the old one is back."""
    with site.load(RATE) as load:
        time.sleep(3)
        old = who()
        site.kube.delete_pod(old, grace=0)
        wait_for(lambda: who() not in {"", old}, "another primary", 60)
        row.notes.append(f"{old} killed, {who()} took over")
        wait_for(lambda: all(ready(each) for each in site.kube.pods()), "all pods", 90)
        time.sleep(5)
        row.figures = load.stop()
    row.notes += failures(row.figures)
    row.verdict = site.audit()
    row.notes.append(f"{row.verdict.skipped} ids jumped over")
    answered_again(row.figures, OUTAGE_SECONDS)


def cli(kube: Kube, pod: str, *command: str, port: int = servers.PORT) -> str:
    """What valkey-cli prints."""
    login = LOGIN if port == servers.PORT else LOGIN[:1]
    asked = (*login, "-p", str(port), *command)
    return kube.run(pod, *asked, container="server", check=False).decode()


def primary(kube: Kube) -> str:
    """The pod that the Sentinels call the primary: most of those that answer."""
    said = []
    for pod in (p for p in kube.pods() if _redis(p) and ready(p)):
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", servers.MASTER)
        words = cli(kube, pod.metadata.name, *ask, port=servers.SENTINEL_PORT).split()
        said += [words[0].split(".")[0]] if words else []
    return max(set(said), key=said.count) if said else ""


def replicas(kube: Kube) -> int:
    """How many the primary has."""
    said = cli(kube, "redis-0", "INFO", "replication")
    return said.count("state=online")


def owner(kube: Kube) -> str:
    """The pod whose server has the first slots: one of the partitions is among them."""
    pods = {str(p.status.pod_ip): str(p.metadata.name) for p in kube.pods() if _redis(p)}
    for pod in (p for p in kube.pods() if _redis(p) and ready(p) and p.metadata.name != "redis-0"):
        nodes = cli(kube, pod.metadata.name, "CLUSTER", "NODES").splitlines()
        for words in (each.split() for each in nodes):
            # id, address, flags, and from the ninth word on what slots a primary has.
            if "master" in words[2] and "fail" not in words[2] and words[8:9] == ["0-5460"]:
                return pods.get(words[1].split(":")[0], "")
    return ""


def _redis(pod: Any) -> bool:
    return bool(pod.metadata.labels.get("app") == "redis")


def _up(kube: Kube, wanted: int) -> bool:
    pods = [each for each in kube.pods() if _redis(each)]
    return len(pods) == wanted and all(map(ready, pods))
