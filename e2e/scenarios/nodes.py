"""Lose the node of Valkey and the flusher under load, and recover with the page's commands."""

import time
from collections.abc import Callable

from e2e.kube import wait_for
from e2e.machine import can_switch_off, switch_off_node
from e2e.measure import require_short_outage
from e2e.pages import run_blocks
from e2e.release import Release
from e2e.report import Report
from e2e.scenarios.faults import describe_failures, is_node_ready, move_pods_to
from e2e.shell import open_shell

RATE = 60.0
STEADY_SECONDS = 3.0
OUTAGE_SECONDS = 180.0
"""The cluster detects the loss in less than a minute. Then the pods start on another node."""
STATEFUL = ("valkey", "flusher")


def lose_node(release: Release, report: Report) -> None:
    """Switch the node off, follow docs/how-to/lost-node.md, and switch it on again."""
    with (
        report.row("node of Valkey and flusher lost, recovered with the page") as row,
        open_shell(release) as bash,
    ):
        # The cluster's own parts are on the first node.
        nodes = [entry.metadata.name for entry in release.kube.nodes()]
        node = nodes[-1]
        if len(nodes) < 2 or not can_switch_off(release.target, node):
            row.skipped = True
            row.notes.append("needs the cluster of E2E_CLUSTER, with two nodes")
            return
        release.install(release.routing_values())
        release.wait_until_routed()
        move_pods_to(release, node, (*STATEFUL, "api"))
        bash.settings["NODE"] = node
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            with switch_off_node(release.target, node):
                wait_for(lambda: not is_node_ready(release.kube, node), f"{node} to be not ready")
                detected = time.monotonic() - began
                run_blocks(bash, "lost-node-look")
                run_blocks(bash, "lost-node")
                repaired = time.monotonic() - began
                time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        run_blocks(bash, "lost-node-back")
        release.kube.wait_until_settled()
        row.notes += [
            f"{node} was not ready after {detected:.0f} s",
            f"the page's commands ended after {repaired:.0f} s",
            f"{row.figures.silence:.0f} s without a 201",
            *describe_failures(row.figures),
        ]
        row.verdict = release.audit()
        require_short_outage(row.figures, OUTAGE_SECONDS)


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (lose_node,)
