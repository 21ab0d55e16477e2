"""One release under steady load, disturbed in one way after the other.

Valkey is kept off the node that is drained: there is one of it, and without it nothing is
answered. What its own end costs, two scenarios of their own say.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from e2e.kube import Kube, leaving, ready, wait_for
from e2e.measure import Figures, answered_again, none_failed
from e2e.release import Release
from e2e.report import Report, Row

RATE = 60.0
STEADY = 3.0
KUBELET_SECONDS = 60.0
OUTAGE_SECONDS = 60.0
"""A single Valkey is moved to, or started again on, the same machine in less."""
LABEL = "kubernetes.io/hostname"
Gate = Callable[[Figures], None]


def served(result: Figures) -> None:
    """Hold a load to it: the cluster mended it by itself. How long it took is in the report."""
    answered_again(result, OUTAGE_SECONDS)


def start(site: Release, report: Report) -> None:
    """Install for what follows."""
    with report.row("install for disturbances"):
        keeper = site.kube.nodes()[0].metadata.labels[LABEL]
        site.install({**site.routes(), "valkey": {"nodeSelector": {LABEL: keeper}}})
        site.wait_routed()


@contextmanager
def disturbed(site: Release, report: Report, name: str, gate: Gate) -> Iterator[Row]:
    """Load around a disturbance; afterwards the release is healthy, and the archive is whole."""
    with report.row(name) as row:
        with site.load(RATE) as load:
            time.sleep(STEADY)
            yield row
            if row.left_out:
                return
            site.kube.wait_settled()
            time.sleep(STEADY)
            row.figures = load.stop()
        row.notes += failures(row.figures)
        row.verdict = site.audit()
        gate(row.figures)


def failures(seen: Figures) -> list[str]:
    """Return the statuses of the failed requests."""
    if not seen.failed:
        return []
    codes = {(code or "no answer"): n for code, n in seen.statuses.items()}
    statuses = ", ".join(f"{n} x {code}" for code, n in codes.items() if code != HTTPStatus.CREATED)
    return [f"{statuses}; {seen.refused} of them said that nothing was stored"]


def end_pod(component: str, *, grace: int | None, gate: Gate) -> Callable[[Release, Report], None]:
    """Make a scenario that ends one pod of a component."""
    how = "killed with no grace" if grace == 0 else "deleted"

    def scenario(site: Release, report: Report) -> None:
        with disturbed(site, report, f"{component} pod {how}", gate):
            pod = site.kube.alive(component)[0].metadata
            site.kube.delete_pod(pod.name, grace=grace)
            wait_for(lambda: replaced(site.kube, component, pod.uid), f"{pod.name} to be replaced")

    return scenario


def replaced(kube: Kube, component: str, uid: str) -> bool:
    """Return whether a pod is gone, and enough others are there."""
    pods = kube.pods(component)
    return bool(pods) and uid not in {pod.metadata.uid for pod in pods} and all(map(ready, pods))


def victim(site: Release, row: Row) -> str:
    """Return a node without Valkey; where there is none the scenario is left out."""
    kept = {pod.spec.node_name for pod in site.kube.pods("valkey")}
    others = [node.metadata.name for node in site.kube.nodes() if node.metadata.name not in kept]
    if not others:
        row.left_out = True
        row.notes.append("needs a second node")
    return str(others[-1]) if others else ""


def drain(site: Release, report: Report) -> None:
    """Drain a node, API pods and flusher on it, and bring it back."""
    with disturbed(site, report, "node drained and brought back", none_failed) as row:
        if not (node := victim(site, row)):
            return
        populate(site, node)
        site.kube.cordon(node, on=True)
        try:
            names = evict_all(site.kube, node)
            row.notes.append(f"{node}: {', '.join(names)} evicted")
        finally:
            site.kube.cordon(node, on=False)


def populate(site: Release, node: str) -> None:
    """Have the flusher and an API pod on the node: the flusher's volume must move as well."""
    others = [entry.metadata.name for entry in site.kube.nodes() if entry.metadata.name != node]
    for component in ("flusher", "api"):
        pods = site.kube.alive(component)
        if node in {pod.spec.node_name for pod in pods}:
            continue
        for other in others:
            site.kube.cordon(other, on=True)
        try:
            site.kube.delete_pod(pods[0].metadata.name)
            wait_for(
                lambda: replaced(site.kube, component, pods[0].metadata.uid),  # noqa: B023
                f"{pods[0].metadata.name} to move",
            )
        finally:
            for item in others:
                site.kube.cordon(item, on=False)


def evict_all(kube: Kube, node: str) -> list[str]:
    """Evict what this namespace has on a node, as budgets allow; wait until it is gone."""
    here = [pod for pod in kube.pods() if pod.spec.node_name == node]

    def empty() -> bool:
        pods = [pod for pod in kube.pods() if pod.spec.node_name == node]
        for entry in pods:
            if not leaving(entry):
                kube.evict(entry)
        return not pods

    wait_for(empty, f"{node} to be empty", 180)
    return [pod.metadata.name for pod in here]


def kubelet(site: Release, report: Report) -> None:
    """Stop a node's kubelet for a minute: the node is lost to the cluster, its pods run on."""
    with disturbed(site, report, "kubelet stopped for a minute", served) as row:
        node = victim(site, row)
        pid = site.target.pid(f"{node}-kubelet") if node else None
        if pid is None:
            row.left_out = True
            row.notes.append(
                "needs the cluster of E2E_CLUSTER, whose kubelets are processes of this machine"
            )
            return
        populate(site, node)
        here = [pod.metadata.name for pod in site.kube.pods() if pod.spec.node_name == node]
        os.kill(pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + KUBELET_SECONDS
            wait_for(lambda: not on(site.kube, node), f"{node} to be called lost")
            time.sleep(max(0.0, end - time.monotonic()))
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: on(site.kube, node), f"{node} to come back")
        row.notes.append(f"{node}, with {', '.join(here)}, was called lost and came back")


def on(kube: Kube, node: str) -> bool:
    """Return whether a node is ready."""
    entry: Any = kube.core.read_node(node)
    return ready(entry)


SCENARIOS = (
    start,
    end_pod("api", grace=None, gate=none_failed),
    end_pod("api", grace=0, gate=served),
    end_pod("flusher", grace=None, gate=none_failed),
    end_pod("flusher", grace=0, gate=none_failed),
    end_pod("valkey", grace=None, gate=served),
    end_pod("valkey", grace=0, gate=served),
    drain,
    kubelet,
)
