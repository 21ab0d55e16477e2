"""An install with defaults, the README's curl line, a rolling upgrade and a rollback."""

import json
import time

from e2e.environment import valkey_image
from e2e.kube import RESTRICTED, is_ready
from e2e.measure import Figures, ScenarioFailed, require_none_failed
from e2e.release import NAME, SEED, Release
from e2e.report import Report, Row

RATE = 60.0
STEADY_SECONDS = 3.0
"""Load before and after a change."""


def install(site: Release, report: Report) -> None:
    """Install, helm test, curl through Ingress and Gateway."""
    with report.row("install with defaults, restricted namespace") as row:
        site.install()
        labels = site.kube.core.read_namespace(site.kube.namespace).metadata.labels
        if not RESTRICTED.items() <= labels.items():
            raise ScenarioFailed(f"the namespace does not enforce restricted: {labels}")
        pods = site.kube.pods()
        if not all(is_ready(pod) for pod in pods):
            raise ScenarioFailed(
                f"not ready: {[pod.metadata.name for pod in pods if not is_ready(pod)]}"
            )
        row.notes.append(f"{len(pods)} pods ready, no value set")
        version = site.kube.run(f"{NAME}-valkey-0", "valkey-server", "--version").decode()
        report.facts["Valkey"] = f"{version.partition('v=')[2].split()[0]}, image {valkey_image()}"
    with report.row("helm test") as row:
        site.helm_test()
        row.verdict = site.audit()
    with report.row("the README's curl line, by Ingress and by Gateway") as row:
        site.upgrade(site.routing_values())
        curl(site, row)


def curl(site: Release, row: Row) -> None:
    """Post data.json through Ingress and Gateway, and find both lines in the archive."""
    for way, host in site.hosts.items():
        site.wait_routed(host)
        number = site.post_seed(host)
        site.wait_flushed()
        line = json.loads(site.flusher_line(number))
        if line["id"] != number or line["usage"] != json.loads(SEED):
            raise ScenarioFailed(f"posted as {number}, archived: {line}")
        row.notes.append(f"id {number} by {way}")
    if "Gateway" not in site.hosts:
        row.notes.append("this cluster has no Gateway")
    row.verdict = site.audit()


def rollout(site: Release, report: Report) -> None:
    """Upgrade under load; no request may fail."""
    with report.row("rolling upgrade") as row:
        pods = list_api_pods(site)
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            site.upgrade({"config": {"pendingMax": 90000}})
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        _judge(site, row, row.figures, pods)


def rollback(site: Release, report: Report) -> None:
    """Roll back under load; no request may fail."""
    with report.row("helm rollback") as row:
        pods = list_api_pods(site)
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            site.helm.rollback(NAME, wait="watcher", timeout=240)
            site.kube.wait_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        _judge(site, row, row.figures, pods)


def _judge(site: Release, row: Row, figures: Figures, before: set[str]) -> None:
    row.verdict = site.audit()
    if list_api_pods(site) & before:
        raise ScenarioFailed(f"not replaced: {list_api_pods(site) & before}")
    require_none_failed(figures)


def list_api_pods(site: Release) -> set[str]:
    """Return the names of the API's pods."""
    return {pod.metadata.name for pod in site.kube.list_ready_pods("api")}
