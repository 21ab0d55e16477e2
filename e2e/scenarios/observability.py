"""Check that Prometheus loads rules and targets, and that alerts on the cluster's metrics fire.

The clusters have no kube-state-metrics. An exporter on the cluster's machine provides its series
from the API server. The rules wait seconds instead of minutes.
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
LOADED_SECONDS = 240
"""A kubelet renews the files of the Prometheus operator within a minute or two."""
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
"""Every pod uses more than 1 % of its memory request, so the autoscaler needs no load."""


def make_values(rules: str) -> Json:
    """Return values with monitors, rules, dashboards, and an autoscaler that scales up."""
    overrides: dict[str, Json] = {
        entry: {"for": "5s"} for entry in (MISSING, AT_MAXIMUM, THROTTLED)
    }
    (expression,) = find_expressions(rules, THROTTLED)
    overrides[THROTTLED]["expr"] = expression.replace("[5m]", "[45s]")
    return {
        "metrics": {
            "serviceMonitor": {"enabled": True, "interval": "5s"},
            "prometheusRule": {"enabled": True, "overrides": overrides},
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


def observe(release: Release, report: Report) -> None:
    """Run the scenarios. Leave out those that need the cluster's metrics if there are none."""
    with report.row("install for observability"):
        release.install(make_values((CHART / "files" / "rules.yaml").read_text()))
    if release.target.program is None:
        check_rules(release, report)
        fire_missing(release, report)
        with report.row("alerts on the cluster's metrics") as row:
            row.skipped = True
            row.notes.append("needs the cluster of E2E_CLUSTER, whose pods reach this machine")
        return
    with add_scrapes(release):
        for scenario in (
            check_rules,
            fire_at_maximum,
            fire_throttled,
            check_panels,
            resolve_throttled,
            fire_missing,
        ):
            scenario(release, report)


def check_rules(release: Release, report: Report) -> None:
    """Check that rules evaluate, targets are up, dashboards are JSON, and no alert fires."""
    with report.row("Prometheus loads monitors and rules") as row:
        count = count_dashboards(release)
        wait_for(
            lambda: not find_problems(query(release, "/rules"), release.namespace),
            "rules",
            LOADED_SECONDS,
        )
        wait_for(
            lambda: count_up(query(release, "/targets"), release.namespace) == TARGETS, "targets"
        )
        rules = own_rules(query(release, "/rules"), release.namespace)
        if QUIET in find_firing(rules):
            raise ScenarioFailed(f"{QUIET} fires after an install")
        row.notes.append(f"{len(rules)} rules, {TARGETS} targets, {count} dashboards")


def fire_at_maximum(release: Release, report: Report) -> None:
    """Drive the autoscaler to its maximum, then raise the maximum."""
    with report.row(f"{AT_MAXIMUM} fires and resolves") as row:
        wait_firing(release, AT_MAXIMUM, LOADED_SECONDS)
        release.upgrade(
            {"autoscaling": {"maxReplicas": 4, "targetMemoryUtilizationPercentage": 90}}
        )
        wait_resolved(release, AT_MAXIMUM)
        row.notes.append("fired at 2 pods, the maximum; resolved with a maximum of 4")


def fire_throttled(release: Release, report: Report) -> None:
    """Run the flusher with too little CPU."""
    with report.row(f"{THROTTLED} fires") as row:
        wait_resolved(release, THROTTLED)
        resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}}
        release.upgrade({"flusher": {"resources": resources}})
        wait_firing(release, THROTTLED)
        row.notes.append("a flusher limited to 0.05 cores")


def check_panels(release: Release, report: Report) -> None:
    """Check that each panel of the dashboard that needs a cluster has data."""
    board = json.loads((CHART / "dashboards" / "resources.json").read_text())
    shown = [entry for entry in board["panels"] if entry["type"] != "row"]
    with (
        report.row("every panel of Autoscaling and resources has data") as row,
        tempfile.TemporaryDirectory(prefix="busyapi-e2e-") as folder,
        watch_namespace(Path(folder), release.namespace) as url,
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
                release.namespace,
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


def resolve_throttled(release: Release, report: Report) -> None:
    """Raise the limit, which resolves the alert."""
    with report.row(f"{THROTTLED} resolves") as row:
        release.upgrade({"flusher": {"resources": {"limits": {"cpu": "2"}}}})
        wait_resolved(release, THROTTLED)
        row.notes.append("with a limit of 2 cores")


def fire_missing(release: Release, report: Report) -> None:
    """Stop the flusher, and start it again."""
    with report.row(f"{MISSING} fires and resolves") as row:
        wait_resolved(release, MISSING)  # the flusher was replaced just now
        scale_flusher(release, 0)
        wait_firing(release, MISSING)
        scale_flusher(release, 1)
        wait_resolved(release, MISSING)
        row.notes.append("flusher scaled to 0 and back to 1")


def scale_flusher(release: Release, replicas: int) -> None:
    """Set the number of flushers."""
    release.kube.apps.patch_namespaced_stateful_set_scale(
        f"{NAME}-flusher", release.namespace, {"spec": {"replicas": replicas}}
    )


def count_dashboards(release: Release) -> int:
    """Count the dashboards; each must be JSON with panels.

    Raises:
        ScenarioFailed: there are none.
    """
    maps = release.kube.core.list_namespaced_config_map(
        release.namespace, label_selector="grafana_dashboard=1"
    ).items
    boards = [json.loads(text) for map_ in maps for text in map_.data.values()]
    if not boards or not all(board["panels"] for board in boards):
        raise ScenarioFailed(f"dashboards: {[entry.metadata.name for entry in maps]}")
    return len(boards)


def query(release: Release, path: str, **arguments: str) -> Any:
    """Query the cluster's Prometheus."""
    return release.kube.get_json(f"{PROMETHEUS}{path}", **arguments)["data"]


def list_firing_alerts(release: Release) -> set[str]:
    """Return the alerts of this release that fire."""
    return find_firing(own_rules(query(release, "/rules"), release.namespace))


def wait_firing(release: Release, alert: str, seconds: float = FIRES_SECONDS) -> None:
    """Wait until an alert of this release fires."""
    wait_for(lambda: alert in list_firing_alerts(release), f"{alert} to fire", seconds)


def wait_resolved(release: Release, alert: str) -> None:
    """Wait until an alert of this release does not fire."""
    wait_for(lambda: alert not in list_firing_alerts(release), f"{alert} to resolve", FIRES_SECONDS)


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
def add_scrapes(release: Release) -> Iterator[None]:
    """Let Prometheus scrape the kubelets and, on this machine, the state of this namespace."""
    registry = CollectorRegistry()
    registry.register(State(release.kube.get_json, release.namespace))
    nodes = release.kube.node_addresses()
    state, thread = start_http_server(0, nodes[0], registry)
    try:
        add_monitor(release, "state", nodes[:1], state.server_port, {"scheme": "http"})
        add_monitor(release, "kubelet", nodes, 10250, KUBELET)
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


def add_monitor(
    release: Release, name: str, addresses: list[str], port: int, endpoint: Json
) -> None:
    """Let Prometheus scrape these addresses, which belong to no pod."""
    meta = {"name": name, "labels": {"app": name}}
    ports = [{"name": "metrics", "port": port}]
    subsets = [{"addresses": [{"ip": address} for address in addresses], "ports": ports}]
    spec = {"clusterIP": "None", "ports": ports}
    release.kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets},
    )
    scrape = {"port": "metrics", "honorLabels": True, "interval": "5s", **endpoint}
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": name}}, "endpoints": [scrape]},
    }
    customs: Any = client.CustomObjectsApi(release.kube.api)
    customs.create_namespaced_custom_object(
        "monitoring.coreos.com", "v1", release.namespace, "servicemonitors", monitor
    )


SCENARIOS = (observe,)
