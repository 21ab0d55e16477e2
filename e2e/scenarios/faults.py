"""Inject one fault after the other into a release under steady load.

The drained node never runs Valkey: there is only one, and without it no request is answered. Two
other scenarios measure what its end costs.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from e2e.kube import Kube, is_ready, is_terminating, wait_for
from e2e.measure import Figures, require_none_failed, require_short_outage
from e2e.release import Release
from e2e.report import Report, Row

RATE = 60.0
STEADY_SECONDS = 3.0
KUBELET_SECONDS = 60.0
OUTAGE_SECONDS = 60.0
"""Moving or restarting the only Valkey on the same machine takes less time."""
LABEL = "kubernetes.io/hostname"
Check = Callable[[Figures], None]


def require_recovery(result: Figures) -> None:
    """Check that the cluster recovered without an operator. The report has the time."""
    require_short_outage(result, OUTAGE_SECONDS)


def install_release(release: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for faults"):
        valkey_node = release.kube.nodes()[0].metadata.labels[LABEL]
        release.install(
            {**release.routing_values(), "valkey": {"nodeSelector": {LABEL: valkey_node}}}
        )
        release.wait_until_routed()


@contextmanager
def disturb(release: Release, report: Report, name: str, check: Check) -> Iterator[Row]:
    """Run a load during a fault. Then check that the release is healthy, the archive complete."""
    with report.row(name) as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            yield row
            if row.skipped:
                return
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = release.audit()
        check(row.figures)


def describe_failures(figures: Figures) -> list[str]:
    """Return the statuses of the failed requests."""
    if not figures.failed:
        return []
    codes = {(code or "no answer"): n for code, n in figures.statuses.items()}
    statuses = ", ".join(f"{n} x {code}" for code, n in codes.items() if code != HTTPStatus.CREATED)
    return [f"{statuses}; {figures.refused} of these were refused with nothing stored"]


def end_pod(
    component: str, *, grace: int | None, check: Check
) -> Callable[[Release, Report], None]:
    """Return a scenario that ends one pod of a component."""
    how = "killed" if grace == 0 else "deleted"

    def scenario(release: Release, report: Report) -> None:
        with disturb(release, report, f"{component} pod {how}", check):
            pod = release.kube.list_ready_pods(component)[0].metadata
            release.kube.delete_pod(pod.name, grace=grace)
            wait_for(
                lambda: is_replaced(release.kube, component, pod.uid), f"{pod.name} to be replaced"
            )

    return scenario


def is_replaced(kube: Kube, component: str, uid: str) -> bool:
    """Return whether a pod is deleted and all others of its component are ready."""
    pods = kube.pods(component)
    return bool(pods) and uid not in {pod.metadata.uid for pod in pods} and all(map(is_ready, pods))


def choose_victim(release: Release, row: Row) -> str:
    """Return a node without Valkey. If there is none, leave out the scenario."""
    kept = {pod.spec.node_name for pod in release.kube.pods("valkey")}
    others = [node.metadata.name for node in release.kube.nodes() if node.metadata.name not in kept]
    if not others:
        row.skipped = True
        row.notes.append("needs a second node")
    return str(others[-1]) if others else ""


def drain_node(release: Release, report: Report) -> None:
    """Drain a node with API pods and the flusher, and uncordon it."""
    with disturb(release, report, "node drained and uncordoned", require_none_failed) as row:
        if not (node := choose_victim(release, row)):
            return
        move_pods_to(release, node)
        release.kube.cordon(node, on=True)
        try:
            names = evict_all(release.kube, node)
            row.notes.append(f"{node}: {', '.join(names)} evicted")
        finally:
            release.kube.cordon(node, on=False)


def move_pods_to(
    release: Release, node: str, components: Sequence[str] = ("flusher", "api")
) -> None:
    """Move a pod of each component to the node, so that their volumes move too."""
    others = [entry.metadata.name for entry in release.kube.nodes() if entry.metadata.name != node]
    for component in components:
        pods = release.kube.list_ready_pods(component)
        if node in {pod.spec.node_name for pod in pods}:
            continue
        for other in others:
            release.kube.cordon(other, on=True)
        try:
            release.kube.delete_pod(pods[0].metadata.name)
            wait_for(
                lambda: is_replaced(release.kube, component, pods[0].metadata.uid),  # noqa: B023
                f"{pods[0].metadata.name} to move",
            )
        finally:
            for item in others:
                release.kube.cordon(item, on=False)


def evict_all(kube: Kube, node: str) -> list[str]:
    """Evict this namespace's pods from a node as budgets allow, and wait until they are deleted."""
    names_on_node = [pod for pod in kube.pods() if pod.spec.node_name == node]

    def is_empty() -> bool:
        pods = [pod for pod in kube.pods() if pod.spec.node_name == node]
        for entry in pods:
            if not is_terminating(entry):
                kube.evict(entry)
        return not pods

    wait_for(is_empty, f"{node} to be empty", 180)
    return [pod.metadata.name for pod in names_on_node]


def stop_kubelet(release: Release, report: Report) -> None:
    """Stop a node's kubelet for a minute. The node is not ready, but its pods continue."""
    with disturb(release, report, "kubelet stopped for a minute", require_recovery) as row:
        node = choose_victim(release, row)
        pid = release.target.pid(f"{node}-kubelet") if node else None
        if pid is None:
            row.skipped = True
            row.notes.append(
                "needs the cluster of E2E_CLUSTER, whose kubelets are processes of this machine"
            )
            return
        move_pods_to(release, node)
        names_on_node = [
            pod.metadata.name for pod in release.kube.pods() if pod.spec.node_name == node
        ]
        os.kill(pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + KUBELET_SECONDS
            wait_for(lambda: not is_node_ready(release.kube, node), f"{node} to be not ready")
            time.sleep(max(0.0, end - time.monotonic()))
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: is_node_ready(release.kube, node), f"{node} to be ready")
        row.notes.append(
            f"{node}, with {', '.join(names_on_node)}, was not ready, then ready again"
        )


def is_node_ready(kube: Kube, node: str) -> bool:
    """Return whether a node is ready."""
    entry: Any = kube.core.read_node(node)
    return is_ready(entry)


SCENARIOS = (
    install_release,
    end_pod("api", grace=None, check=require_none_failed),
    end_pod("api", grace=0, check=require_recovery),
    end_pod("flusher", grace=None, check=require_none_failed),
    end_pod("flusher", grace=0, check=require_none_failed),
    end_pod("valkey", grace=None, check=require_recovery),
    end_pod("valkey", grace=0, check=require_recovery),
    drain_node,
    stop_kubelet,
)
