"""Install with defaults, post the README's usage, upgrade and roll back under load."""

import json
import time

from e2e.environment import valkey_image
from e2e.kube import RESTRICTED, is_ready
from e2e.measure import Figures, ScenarioFailed, require_none_failed
from e2e.relay import relay
from e2e.release import EXAMPLE, NAME, Release
from e2e.report import Report, Row

RATE = 60.0
STEADY_SECONDS = 3.0
"""How long the load runs before and after a change."""


def install(release: Release, report: Report) -> None:
    """Install, run `helm test`, and post through Ingress and Gateway."""
    with report.row("install with defaults, restricted namespace") as row:
        release.install()
        labels = release.kube.core.read_namespace(release.kube.namespace).metadata.labels
        if not RESTRICTED.items() <= labels.items():
            raise ScenarioFailed(f"the namespace does not enforce restricted: {labels}")
        pods = release.kube.pods()
        if not all(is_ready(pod) for pod in pods):
            raise ScenarioFailed(
                f"not ready: {[pod.metadata.name for pod in pods if not is_ready(pod)]}"
            )
        row.notes.append(f"{len(pods)} pods ready with default values")
        version = release.kube.run(f"{NAME}-valkey-0", "valkey-server", "--version").decode()
        report.facts["Valkey"] = f"{version.partition('v=')[2].split()[0]}, image {valkey_image()}"
    with report.row("helm test") as row:
        release.helm_test()
        row.verdict = release.audit()
    with report.row("the README's usage posted through Ingress and Gateway") as row:
        release.upgrade(release.routing_values())
        post_example_by_hosts(release, row)
    with report.row("helm test from outside") as row:
        if release.target.program is None:
            row.skipped = True
            row.notes.append("needs the cluster of E2E_CLUSTER, whose pods reach this machine")
            return
        address = release.kube.node_addresses()[0]
        with relay(address, release.target.port) as port:
            outside = {"enabled": True, "connectTo": f"{address}:{port}"}
            for way, host in release.hosts.items():
                release.upgrade({"tests": {"outside": {**outside, "url": f"http://{host}"}}})
                release.helm_test()
                row.notes.append(f"by the {way}")
        release.upgrade({"tests": {"outside": {"enabled": False}}})
        row.verdict = release.audit()


def post_example_by_hosts(release: Release, row: Row) -> None:
    """Post data.json through Ingress and Gateway, and find both lines in the archive."""
    for way, host in release.hosts.items():
        release.wait_until_routed(host)
        number = release.post_example(host)
        release.wait_until_flushed()
        line = json.loads(release.read_archived_line(number))
        if line["id"] != number or line["usage"] != json.loads(EXAMPLE):
            raise ScenarioFailed(f"posted as {number}, archived: {line}")
        row.notes.append(f"id {number} through {way}")
    if "Gateway" not in release.hosts:
        row.notes.append("this cluster has no Gateway")
    row.verdict = release.audit()


def upgrade(release: Release, report: Report) -> None:
    """Upgrade under load. No request may fail."""
    with report.row("rolling upgrade") as row:
        pods = list_api_pods(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade({"config": {"pendingMax": 90000}})
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        _check_upgrade(release, row, row.figures, pods)


def roll_back(release: Release, report: Report) -> None:
    """Roll back under load. No request may fail."""
    with report.row("helm rollback") as row:
        pods = list_api_pods(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.helm.rollback(NAME, wait="watcher", timeout=240)
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        _check_upgrade(release, row, row.figures, pods)


def _check_upgrade(release: Release, row: Row, figures: Figures, before: set[str]) -> None:
    row.verdict = release.audit()
    if list_api_pods(release) & before:
        raise ScenarioFailed(f"not replaced: {list_api_pods(release) & before}")
    require_none_failed(figures)


def list_api_pods(release: Release) -> set[str]:
    """Return the names of the API's pods."""
    return {pod.metadata.name for pod in release.kube.list_ready_pods("api")}
