"""Three bundled Valkey servers with Sentinels: lose and replace each of their parts under load.

A 201 must outlive all of it. The report has how long no request was answered.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from e2e import environment, images
from e2e.kube import is_ready, is_terminating, wait_for
from e2e.machine import can_switch_off, switch_off_node
from e2e.measure import Figures, ScenarioFailed, require_none_failed, require_short_outage
from e2e.release import Release
from e2e.report import Report, Row
from e2e.scenarios import operations
from e2e.scenarios.faults import describe_failures, evict_all, is_node_ready, move_pods_to

RATE = 60.0
STEADY_SECONDS = 5.0
SETTLE_SECONDS = 240.0
LOST_SECONDS = 6.0
"""Up to two until the Sentinels find the primary down, and one until they know of the promotion.
docs/reports/failovers.md has what is usual; another load on the machine makes it longer."""
PLANNED_SECONDS = 7.0
"""Usually one. But a Sentinel may promote the other server before the primary's FAILOVER ends."""
AWAY_SECONDS = 60.0
SERVERS = 3
OTHER_TAG = "8.1.1"
WHO_SCRIPT = ". /etc/valkey/tier.sh; for s in $HOSTNAME $(others); do ask_sentinel $s; done"
SMALL: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "resources": {"requests": {"cpu": "50m"}},
    "flusher": {"persistence": {"size": "256Mi"}, "resources": {"requests": {"cpu": "20m"}}},
    "valkey": {"persistence": {"size": "256Mi"}, "resources": {"requests": {"cpu": "20m"}}},
}
Check = Callable[[Figures], None]


def make_values(release: Release, servers: int) -> dict[str, Any]:
    """Return the values of a small release with a number of servers."""
    valkey = SMALL["valkey"] | {"replicas": servers}
    return {**release.routing_values(), **SMALL, "valkey": valkey}


def find_primary(release: Release) -> str:
    """Return the primary's pod as the Sentinels know it, of the latest epoch; "" if none says."""
    words = ("sh", "-c", WHO_SCRIPT)
    # A pod may be gone. The first node is never switched off: asking a pod there does not hang.
    for pod in sorted(release.kube.pods("valkey"), key=lambda pod: pod.spec.node_name or "~"):
        with suppress(ApiException, HTTPError, OSError, ValueError):
            reply = release.kube.run(pod.metadata.name, *words, container="sentinel", check=False)
            lines = [line.split() for line in reply.decode().splitlines()]
            if lines:
                return max((int(epoch), primary) for epoch, primary in lines)[1]
    return ""


def wait_until_complete(release: Release, servers: int = SERVERS) -> None:
    """Wait until every replica confirms commits: then all pods are ready."""

    def is_complete() -> bool:
        pods = release.kube.pods("valkey")
        return len(pods) == servers and release.kube.is_settled()

    wait_for(is_complete, f"{servers} Valkey servers", SETTLE_SECONDS)


@contextmanager
def disturb(release: Release, report: Report, name: str, check: Check) -> Iterator[Row]:
    """Run a load during a fault. Then check that all servers are back, and the archive complete."""
    with report.row(name) as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            yield row
            if row.skipped:
                return
            wait_until_complete(release)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += [f"{row.figures.silence:.1f} s without a 201", *describe_failures(row.figures)]
        row.verdict = release.audit(failover=True)
        row.notes.append(f"{row.verdict.skipped} ids skipped")
        require_no_refusal(release)
        check(row.figures)


def require_no_refusal(release: Release) -> None:
    """Check that no server has refused a command of its clients, the Sentinels or a replica.

    Raises:
        ScenarioFailed: A user lacks a right that it needs.
    """
    command = '. /etc/valkey/tier.sh; call "$HOSTNAME" 6379 pod info stats commandstats'
    words = ("sh", "-c", command)
    for pod in release.kube.pods("valkey"):
        reply = release.kube.run(pod.metadata.name, *words).decode()
        denied = dict(re.findall(r"acl_access_denied_(\w+):(\d+)", reply))
        if not denied or set(denied.values()) != {"0"}:
            rejected = re.findall(r"cmdstat_(\S+):.*rejected_calls=[1-9]", reply)
            raise ScenarioFailed(f"{pod.metadata.name} has refused {denied}, rejected: {rejected}")


def require_failover(figures: Figures) -> None:
    """Check the silence after the loss of a primary."""
    require_short_outage(figures, LOST_SECONDS)


def require_handover(figures: Figures) -> None:
    """Check the silence of planned changes."""
    require_short_outage(figures, PLANNED_SECONDS)


def skip_without_nodes(release: Release, row: Row) -> bool:
    """Skip a row if the servers cannot have a node each; return whether that is so."""
    if len(release.kube.nodes()) >= SERVERS:
        return False
    row.skipped = True
    row.notes.append("needs three nodes")
    return True


def install_release(release: Release, report: Report) -> None:
    """Install three servers on three nodes, and post."""
    with report.row("three Valkey servers: installed") as row:
        if skip_without_nodes(release, row):
            return
        release.install(make_values(release, SERVERS))
        wait_until_complete(release)
        release.wait_until_routed()
        release.helm_test()
        nodes = {pod.spec.node_name for pod in release.kube.pods("valkey")}
        if len(nodes) != SERVERS:
            raise ScenarioFailed(f"the servers are on {nodes}")
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)


def wait_for_other(release: Release, row: Row, old: str) -> None:
    """Wait until another server is the primary."""
    wait_for(lambda: find_primary(release) not in {"", old}, "another primary", 60)
    row.notes.append(f"{old} lost, {find_primary(release)} took over")


def kill_primary(release: Release, report: Report) -> None:
    """Kill the primary's pod at once, as `kubectl delete pod --force` does."""
    with disturb(release, report, "primary's pod killed", require_failover) as row:
        old = find_primary(release)
        release.kube.delete_pod(old, grace=0)
        wait_for_other(release, row, old)


def lose_volume(release: Release, report: Report) -> None:
    """Delete the primary's volume, and kill its pod."""
    with disturb(release, report, "primary's pod and volume deleted", require_failover) as row:
        old = find_primary(release)
        release.kube.core.delete_namespaced_persistent_volume_claim(
            f"data-{old}", release.namespace
        )
        release.kube.delete_pod(old, grace=0)
        wait_for_other(release, row, old)


def roll_servers(release: Release, report: Report) -> None:
    """Replace Valkey's image, in one pod after the other."""
    image = f"{environment.valkey_image().rpartition(':')[0]}:{OTHER_TAG}"
    images.build_valkey(release.target, image, present=release.kube.has_image(image))
    with disturb(release, report, "Valkey's image replaced by an upgrade", require_handover):
        release.upgrade({"valkey": {"image": {"tag": OTHER_TAG}}})
    used = {pod.spec.containers[0].image for pod in release.kube.pods("valkey")}
    if used != {image}:
        raise ScenarioFailed(f"the pods run {used}")


def drain_nodes(release: Release, report: Report) -> None:
    """Drain each node, and uncordon it."""
    with disturb(release, report, "each node drained", require_handover) as row:
        for node in [entry.metadata.name for entry in release.kube.nodes()]:
            release.kube.cordon(node, on=True)
            try:
                evict_all(release.kube, node)
            finally:
                release.kube.cordon(node, on=False)
            wait_until_complete(release)
            row.notes.append(f"{node} drained")


def rotate_passwords(release: Release, report: Report) -> None:
    """Rotate the passwords: all pods restart twice."""
    with report.prefixed("three Valkey servers: "):
        operations.rotate_passwords(release, report, check=require_handover)


def lose_node(release: Release, report: Report) -> None:
    """Switch off the node of the primary, and keep it away; API and flusher are elsewhere."""
    with report.row("primary's node lost") as row:
        kept, *others = [entry.metadata.name for entry in release.kube.nodes()]
        # The cluster's own parts are on the first node.
        if not all(can_switch_off(release.target, node) for node in others):
            row.skipped = True
            row.notes.append("needs the cluster of E2E_CLUSTER")
            return
        move_pods_to(release, kept, ("flusher",))
        node = place_primary(release, kept)
        move_api(release, kept)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            old = find_primary(release)
            with switch_off_node(release.target, node):
                wait_for_other(release, row, old)
                wait_for(lambda: not is_node_ready(release.kube, node), f"{node} to be not ready")
                time.sleep(AWAY_SECONDS)
                row.figures = load.stop()
        wait_for(lambda: is_node_ready(release.kube, node), f"{node} to be ready")
        wait_until_complete(release)
        row.notes += [f"{row.figures.silence:.1f} s without a 201", *describe_failures(row.figures)]
        row.verdict = release.audit(failover=True)
        require_failover(row.figures)


def place_primary(release: Release, kept: str) -> str:
    """Make the primary run on another node than this one; return its node."""
    for _ in range(SERVERS):
        old = find_primary(release)
        node = release.kube.core.read_namespaced_pod(old, release.namespace).spec.node_name
        if node != kept:
            return str(node)
        release.kube.delete_pod(old)
        wait_for(lambda: find_primary(release) not in {"", old}, "another primary", 60)  # noqa: B023
        wait_until_complete(release)
    raise ScenarioFailed(f"the primary is always on {kept}")


def move_api(release: Release, kept: str) -> None:
    """Move the API's pods to a node, so that only the loss of Valkey counts."""
    others = [e.metadata.name for e in release.kube.nodes() if e.metadata.name != kept]
    for node in others:
        release.kube.cordon(node, on=True)
    try:
        for pod in release.kube.pods("api"):
            if pod.spec.node_name != kept and not is_terminating(pod):
                release.kube.delete_pod(pod.metadata.name)
        wait_for(
            lambda: all(
                pod.spec.node_name == kept and is_ready(pod) for pod in release.kube.pods("api")
            ),
            f"the API on {kept}",
            120,
        )
    finally:
        for node in others:
            release.kube.cordon(node, on=False)


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_release,
    kill_primary,
    lose_volume,
    roll_servers,
    drain_nodes,
    rotate_passwords,
    lose_node,
)
