"""The operator's Prometheus accepts rules and targets, and alerts that need a cluster fire.

The clusters have no kube-state-metrics: an exporter on the machine below the cluster provides its
series from the API server. Rules wait seconds in place of minutes.
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
from e2e.measure import ScenarioFailed
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
MISSING, AT_MAXIMUM, THROTTLED = (
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
"""Any memory use is above 1 % of the request, so no load is needed."""


def values(rules: str) -> Json:
    """Return values with monitors, rules, dashboards, and an autoscaler that scales up."""
    soon: dict[str, Json] = {entry: {"for": "5s"} for entry in (MISSING, AT_MAXIMUM, THROTTLED)}
    (throttled,) = find_expressions(rules, THROTTLED)
    soon[THROTTLED]["expr"] = throttled.replace("[5m]", "[45s]")
    return {
        "metrics": {
            "serviceMonitor": {"enabled": True, "interval": "5s"},
            "prometheusRule": {"enabled": True, "overrides": soon},
            "dashboards": {"enabled": True},
        },
        "autoscaling": SCALING,
    }


def find_expressions(rules: str, alert: str) -> list[str]:
    """Return the expressions of an alert."""
    groups = yaml.safe_load(rules)["groups"]
    return [
        rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == alert
    ]


def observe(site: Release, report: Report) -> None:
    """Run the scenarios. Those that need series of the cluster may be left out."""
    with report.row("install for observability"):
        site.install(values((CHART / "files" / "rules.yaml").read_text()))
    if site.target.program is None:
        loaded(site, report)
        missing(site, report)
        with report.row("alerts on the cluster's metrics") as row:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER, whose pods reach this machine")
        return
    with add_scrapes(site):
        for scenario in (loaded, at_maximum, throttled, panels, unthrottled, missing):
            scenario(site, report)


def loaded(site: Release, report: Report) -> None:
    """Check that rules evaluate, targets are up, dashboards are JSON, and no alert fires."""
    with report.row("Prometheus accepts monitors and rules") as row:
        count = count_dashboards(site)
        wait_for(
            lambda: not find_problems(query(site, "/rules"), site.namespace),
            "rules",
            LOADED_SECONDS,
        )
        wait_for(lambda: count_up(query(site, "/targets"), site.namespace) == TARGETS, "targets")
        rules = own_rules(query(site, "/rules"), site.namespace)
        if QUIET in find_firing(rules):
            raise ScenarioFailed(f"{QUIET} fires after an install")
        row.notes.append(f"{len(rules)} rules, {TARGETS} targets, {count} dashboards")


def at_maximum(site: Release, report: Report) -> None:
    """Drive the autoscaler to its maximum, then raise that."""
    with report.row(f"{AT_MAXIMUM} fires and resolves") as row:
        wait_firing(site, AT_MAXIMUM, LOADED_SECONDS)
        site.upgrade({"autoscaling": {"maxReplicas": 4, "targetMemoryUtilizationPercentage": 90}})
        wait_resolved(site, AT_MAXIMUM)
        row.notes.append("at 2 of 1 to 2 pods; resolved with 4 allowed")


def throttled(site: Release, report: Report) -> None:
    """Run the flusher with too little CPU."""
    with report.row(f"{THROTTLED} fires") as row:
        wait_resolved(site, THROTTLED)
        few = {"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}}
        site.upgrade({"flusher": {"resources": few}})
        wait_firing(site, THROTTLED)
        row.notes.append("a flusher limited to 0.05 cores")


def panels(site: Release, report: Report) -> None:
    """Check that each panel of the dashboard that needs a cluster has data."""
    board = json.loads((CHART / "dashboards" / "resources.json").read_text())
    shown = [entry for entry in board["panels"] if entry["type"] != "row"]
    with (
        report.row("every panel of Autoscaling and resources has data") as row,
        tempfile.TemporaryDirectory(prefix="busyapi-e2e-") as folder,
        watch_namespace(Path(folder), site.namespace) as url,
    ):
        empty_panels: list[str] = []

        def has_data() -> bool:
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
            empty_panels[:] = [
                panel["title"]
                for panel in shown
                if not all(
                    query_curves({**panel, "targets": [one]}, choice) for one in panel["targets"]
                )
            ]
            return not empty_panels

        try:
            wait_for(has_data, "data in every panel", PANELS_SECONDS)
        finally:
            row.notes.append(
                f"{len(shown)} panels; without data: {', '.join(empty_panels) or 'none'}"
            )


def unthrottled(site: Release, report: Report) -> None:
    """Raise the limit, which resolves the alert."""
    with report.row(f"{THROTTLED} resolves") as row:
        site.upgrade({"flusher": {"resources": {"limits": {"cpu": "2"}}}})
        wait_resolved(site, THROTTLED)
        row.notes.append("with a limit of 2 cores")


def missing(site: Release, report: Report) -> None:
    """Stop the flusher, and start it again."""
    with report.row(f"{MISSING} fires and resolves") as row:
        wait_resolved(site, MISSING)  # the flusher was replaced just now
        scale_flusher(site, 0)
        wait_firing(site, MISSING)
        scale_flusher(site, 1)
        wait_resolved(site, MISSING)
        row.notes.append("flusher scaled to 0 and back")


def scale_flusher(site: Release, replicas: int) -> None:
    """Set the number of flushers."""
    site.kube.apps.patch_namespaced_stateful_set_scale(
        f"{NAME}-flusher", site.namespace, {"spec": {"replicas": replicas}}
    )


def count_dashboards(site: Release) -> int:
    """Count the dashboards; each must be JSON with panels.

    Raises:
        ScenarioFailed: there are none.
    """
    maps = site.kube.core.list_namespaced_config_map(
        site.namespace, label_selector="grafana_dashboard=1"
    ).items
    boards = [json.loads(text) for map_ in maps for text in map_.data.values()]
    if not boards or not all(board["panels"] for board in boards):
        raise ScenarioFailed(f"dashboards: {[entry.metadata.name for entry in maps]}")
    return len(boards)


def query(site: Release, path: str) -> Any:
    """Query the cluster's Prometheus."""
    return site.kube.get_json(f"{PROMETHEUS}{path}")["data"]


def list_firing_alerts(site: Release) -> set[str]:
    """Return the alerts of this release that fire."""
    return find_firing(own_rules(query(site, "/rules"), site.namespace))


def wait_firing(site: Release, alert: str, seconds: float = FIRES_SECONDS) -> None:
    """Wait until an alert of this release fires."""
    wait_for(lambda: alert in list_firing_alerts(site), f"{alert} to fire", seconds)


def wait_resolved(site: Release, alert: str) -> None:
    """Wait until an alert of this release does not fire."""
    wait_for(lambda: alert not in list_firing_alerts(site), f"{alert} to resolve", FIRES_SECONDS)


def own_rules(reply: Any, namespace: str) -> list[Any]:
    """Return this release's rules. The operator names their file by namespace."""
    return [
        rule
        for group in reply["groups"]
        if f"/{namespace}-{NAME}-" in group["file"]
        for rule in group["rules"]
    ]


def find_problems(reply: Any, namespace: str) -> list[str]:
    """Return the problems of this release's rules: missing, not evaluated yet, or failed."""
    rules = own_rules(reply, namespace)
    bad = [f"{rule['name']}: {rule['health']}" for rule in rules if rule["health"] != "ok"]
    return bad if rules else ["no rules"]


def count_up(reply: Any, namespace: str) -> int:
    """Count the targets of this release that answer."""
    return sum(
        entry["health"] == "up"
        for entry in reply["activeTargets"]
        if entry["labels"].get("namespace") == namespace and entry["labels"].get("release") == NAME
    )


def find_firing(rules: list[Any]) -> set[str]:
    """Return the alerts among rules that fire."""
    return {rule["name"] for rule in rules if rule.get("state") == "firing"}


@contextmanager
def add_scrapes(site: Release) -> Iterator[None]:
    """Let Prometheus scrape the kubelets and, on this machine, the state of this namespace."""
    registry = CollectorRegistry()
    registry.register(State(site.kube.get_json, site.namespace))
    nodes = [
        address.address
        for node in site.kube.nodes()
        for address in node.status.addresses
        if address.type == "InternalIP"
    ]
    state, thread = start_http_server(0, nodes[0], registry)
    try:
        add_monitor(site, "state", nodes[:1], state.server_port, {"scheme": "http"})
        add_monitor(site, "kubelet", nodes, 10250, KUBELET)
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


def add_monitor(site: Release, name: str, addresses: list[str], port: int, endpoint: Json) -> None:
    """Let Prometheus scrape addresses that are no pods."""
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
