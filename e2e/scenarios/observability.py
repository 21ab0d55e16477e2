"""The operator's Prometheus takes rules and targets, and alerts that only a cluster feeds do fire.

kube-state-metrics is on no cluster that this runs on: its series come from the API server's state,
by an exporter on the machine below the cluster. Rules wait seconds here in place of minutes.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from prometheus_client import CollectorRegistry, start_http_server

from e2e.kube import Json, wait_for
from e2e.measure import Broken
from e2e.release import CHART, NAME, Release
from e2e.report import Report
from tools.preview.cluster import KUBELET_INTERVAL_SECONDS, watch_namespace
from tools.preview.kube_state import State
from tools.preview.panel_queries import Choice, query_curves

PROMETHEUS = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1"
TARGETS = 3
"""Two API pods and a flusher."""
LOADED_SECONDS = 150
"""A kubelet renews the operator's files within a minute or two."""
FIRES_SECONDS = 90
PANELS_SECONDS = 150
SHOWN_SECONDS = 120
MISSING, MOST, THROTTLED = (
    "BusyapiTargetsMissing",
    "BusyapiAutoscalerAtMaximum",
    "BusyapiPodsThrottled",
)
QUIET = "BusyapiArchivingBurn"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SCALING: Json = {
    "minReplicas": 1,
    "maxReplicas": 2,
    "targetCPUUtilizationPercentage": None,
    "targetMemoryUtilizationPercentage": 1,
}
"""All memory that a pod has is too much of its request: no load is needed."""


def values(rules: str) -> Json:
    """Monitors, rules and dashboards; an autoscaler that idle pods drive to its maximum."""
    soon: dict[str, Json] = {entry: {"for": "5s"} for entry in (MISSING, MOST, THROTTLED)}
    (throttled,) = expressions(rules, THROTTLED)
    soon[THROTTLED]["expr"] = throttled.replace("[5m]", "[45s]")
    return {
        "metrics": {
            "serviceMonitor": {"enabled": True, "interval": "5s"},
            "prometheusRule": {"enabled": True, "overrides": soon},
            "dashboards": {"enabled": True},
        },
        "autoscaling": SCALING,
    }


def expressions(rules: str, alert: str) -> list[str]:
    """Return the expressions of an alert."""
    groups = yaml.safe_load(rules)["groups"]
    return [
        rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == alert
    ]


def observe(site: Release, report: Report) -> None:
    """Install; what needs series from outside of the release is left out where they cannot come."""
    with report.row("install for observability"):
        site.install(values((CHART / "files" / "rules.yaml").read_text()))
    if site.target.program is None:
        loaded(site, report)
        missing(site, report)
        with report.row("alerts of the cluster's own figures") as row:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER, whose pods reach this machine")
        return
    with scraped(site):
        for scenario in (loaded, at_maximum, throttled, panels, unthrottled, missing):
            scenario(site, report)


def loaded(site: Release, report: Report) -> None:
    """All rules evaluate, all targets are up, dashboards are JSON, a new release is no alarm."""
    with report.row("Prometheus takes monitors and rules") as row:
        count = dashboards(site)
        wait_for(lambda: not troubles(ask(site, "/rules"), site.namespace), "rules", LOADED_SECONDS)
        wait_for(lambda: up(ask(site, "/targets"), site.namespace) == TARGETS, "targets")
        rules = ours(ask(site, "/rules"), site.namespace)
        if QUIET in firing(rules):
            raise Broken(f"{QUIET} fires after an install")
        row.notes.append(f"{len(rules)} rules, {TARGETS} targets, {count} dashboards")


def at_maximum(site: Release, report: Report) -> None:
    """The autoscaler asks for all pods it may have, until it may have more."""
    with report.row(f"{MOST} fires and resolves") as row:
        fires(site, MOST, LOADED_SECONDS)
        site.upgrade({"autoscaling": {"maxReplicas": 4, "targetMemoryUtilizationPercentage": 90}})
        resolves(site, MOST)
        row.notes.append("at 2 of 1 to 2 pods; resolved with 4 allowed")


def throttled(site: Release, report: Report) -> None:
    """A flusher with too little CPU."""
    with report.row(f"{THROTTLED} fires") as row:
        resolves(site, THROTTLED)
        few = {"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}}
        site.upgrade({"flusher": {"resources": few}})
        fires(site, THROTTLED)
        row.notes.append("a flusher limited to 0.05 cores")


def panels(site: Release, report: Report) -> None:
    """Each panel of a dashboard that one machine cannot feed has data, the limit's among them."""
    board = json.loads((CHART / "dashboards" / "resources.json").read_text())
    shown = [entry for entry in board["panels"] if entry["type"] != "row"]
    with (
        report.row("every panel of Autoscaling and resources has data") as row,
        tempfile.TemporaryDirectory(prefix="busyapi-e2e-") as folder,
        watch_namespace(Path(folder), site.namespace) as url,
    ):
        bare: list[str] = []

        def fed() -> bool:
            end = time.time()
            choice = Choice(
                url,
                end - SHOWN_SECONDS,
                end,
                5,
                f"{4 * KUBELET_INTERVAL_SECONDS}s",
                site.namespace,
                NAME,
            )
            bare[:] = [
                panel["title"]
                for panel in shown
                if not all(
                    query_curves({**panel, "targets": [one]}, choice) for one in panel["targets"]
                )
            ]
            return not bare

        try:
            wait_for(fed, "data in every panel", PANELS_SECONDS)
        finally:
            row.notes.append(f"{len(shown)} panels; without data: {', '.join(bare) or 'none'}")


def unthrottled(site: Release, report: Report) -> None:
    """A limit that was raised ends the alert."""
    with report.row(f"{THROTTLED} resolves") as row:
        site.upgrade({"flusher": {"resources": {"limits": {"cpu": "2"}}}})
        resolves(site, THROTTLED)
        row.notes.append("with a limit of 2 cores")


def missing(site: Release, report: Report) -> None:
    """No flusher at all; it comes back."""
    with report.row(f"{MISSING} fires and resolves") as row:
        resolves(site, MISSING)  # the flusher was replaced just now
        scale(site, 0)
        fires(site, MISSING)
        scale(site, 1)
        resolves(site, MISSING)
        row.notes.append("flusher scaled to 0 and back")


def scale(site: Release, replicas: int) -> None:
    """Have so many flushers."""
    site.kube.apps.patch_namespaced_stateful_set_scale(
        f"{NAME}-flusher", site.namespace, {"spec": {"replicas": replicas}}
    )


def dashboards(site: Release) -> int:
    """Count the dashboards; each must be JSON with panels.

    Raises:
        Broken: there are none.
    """
    maps = site.kube.core.list_namespaced_config_map(
        site.namespace, label_selector="grafana_dashboard=1"
    ).items
    boards = [json.loads(text) for map_ in maps for text in map_.data.values()]
    if not boards or not all(board["panels"] for board in boards):
        raise Broken(f"dashboards: {[entry.metadata.name for entry in maps]}")
    return len(boards)


def ask(site: Release, path: str) -> Any:
    """Ask the cluster's Prometheus."""
    return site.kube.raw(f"{PROMETHEUS}{path}")["data"]


def alerts(site: Release) -> set[str]:
    """Which alerts of this release fire."""
    return firing(ours(ask(site, "/rules"), site.namespace))


def fires(site: Release, alert: str, seconds: float = FIRES_SECONDS) -> None:
    """Wait until an alert of this release fires."""
    wait_for(lambda: alert in alerts(site), f"{alert} to fire", seconds)


def resolves(site: Release, alert: str) -> None:
    """Wait until it does not."""
    wait_for(lambda: alert not in alerts(site), f"{alert} to resolve", FIRES_SECONDS)


def ours(reply: Any, namespace: str) -> list[Any]:
    """This release's rules: the operator names their file by namespace."""
    return [
        rule
        for group in reply["groups"]
        if f"/{namespace}-{NAME}-" in group["file"]
        for rule in group["rules"]
    ]


def troubles(reply: Any, namespace: str) -> list[str]:
    """Return what is wrong with this release's rules: none there, not evaluated yet, or failed."""
    rules = ours(reply, namespace)
    bad = [f"{rule['name']}: {rule['health']}" for rule in rules if rule["health"] != "ok"]
    return bad if rules else ["no rules"]


def up(reply: Any, namespace: str) -> int:
    """Count the targets of this release that answer."""
    return sum(
        entry["health"] == "up"
        for entry in reply["activeTargets"]
        if entry["labels"].get("namespace") == namespace and entry["labels"].get("release") == NAME
    )


def firing(rules: list[Any]) -> set[str]:
    """Which alerts among the rules fire."""
    return {rule["name"] for rule in rules if rule.get("state") == "firing"}


@contextmanager
def scraped(site: Release) -> Iterator[None]:
    """Have Prometheus read the kubelets, and the state of this namespace from this machine."""
    registry = CollectorRegistry()
    registry.register(State(site.kube.raw, site.namespace))
    nodes = [
        address.address
        for node in site.kube.nodes()
        for address in node.status.addresses
        if address.type == "InternalIP"
    ]
    state, thread = start_http_server(0, nodes[0], registry)
    try:
        watch(site, "state", nodes[:1], state.server_port, {"scheme": "http"})
        watch(site, "kubelet", nodes, 10250, KUBELET)
        yield
    finally:
        state.shutdown()
        thread.join(FIRES_SECONDS)


KUBELET: Json = {
    "scheme": "https",
    "path": "/metrics/cadvisor",
    "bearerTokenFile": TOKEN,
    "tlsConfig": {"insecureSkipVerify": True},
    "honorTimestamps": False,
    "metricRelabelings": [
        {"sourceLabels": ["__name__"], "regex": "container_cpu_cfs_.*", "action": "keep"}
    ],
}


def watch(site: Release, name: str, addresses: list[str], port: int, endpoint: Json) -> None:
    """Have Prometheus scrape what no pod is."""
    meta = {"name": name, "labels": {"app": name}}
    ports = [{"name": "metrics", "port": port}]
    subsets = [{"addresses": [{"ip": address} for address in addresses], "ports": ports}]
    spec = {"clusterIP": "None", "ports": ports}
    site.kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets},
    )
    scrape = {"port": "metrics", "honorLabels": True, "interval": "5s", **endpoint}
    asked = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": name}}, "endpoints": [scrape]},
    }
    customs: Any = client.CustomObjectsApi(site.kube.api)
    customs.create_namespaced_custom_object(
        "monitoring.coreos.com", "v1", site.namespace, "servicemonitors", asked
    )


SCENARIOS = (observe,)
