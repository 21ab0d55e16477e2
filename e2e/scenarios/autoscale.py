"""The API scales with its load and back: on requests a second, on CPU alone, through KEDA.

Each pod may use a fifth of a core, so that two cores are enough to need more pods.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from kubernetes.client import ApiException

from e2e import timeline
from e2e.kube import wait_for
from e2e.measure import none_failed
from e2e.release import NAME, Release
from e2e.report import Report, Row
from e2e.target import ROOT

ADAPTER = ROOT / "k8s" / "observability" / "prometheus-adapter.yaml"
MONITORING = "monitoring"
PROMETHEUS = "http://prometheus.monitoring:9090"
CALM, BUSY = 20.0, 200.0
"""Requests a second."""
A_POD = 40
"""Requests a second of one pod, above which another is asked for: 200 make five."""
FEWEST, MOST, ENOUGH = 2, 5, 4
UP_SECONDS = 150
DOWN_SECONDS = 240
METRIC = "busyapi_requests_per_second"
BEHAVIOR = {
    "scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    "scaleDown": {
        "stabilizationWindowSeconds": 15,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}],
    },
}
SMALL: dict[str, Any] = {
    "resources": {"requests": {"cpu": "60m"}, "limits": {"cpu": "200m"}},
    "metrics": {"podMonitor": {"enabled": True, "interval": "5s"}},
}


def start(site: Release, report: Report) -> None:
    """Install for what follows."""
    with report.row("install for autoscaling"):
        site.install({**site.routes(), **SMALL, "autoscaling": _scaling(None, A_POD)})
        site.wait_routed()


def _scaling(cpu: int | None, requests: int | None) -> dict[str, Any]:
    return {
        "enabled": True,
        "minReplicas": FEWEST,
        "maxReplicas": MOST,
        "targetCPUUtilizationPercentage": cpu,
        "targetRequestsPerSecond": requests,
        "behavior": BEHAVIOR,
    }


def by_requests(site: Release, report: Report) -> None:
    """HPA on a Pods metric, by the rule that k8s/observability ships."""
    with report.row("autoscaling on requests a second") as row:
        if site.target.program is None:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER: its adapter gets our rule")
            return
        # The adapter looks which series there are when it starts, and long after that again.
        wait_for(lambda: _scraped(site), "Prometheus to have the API's series", 120)
        with shipped_rule(site):
            wait_for(lambda: _served(site), f"the adapter to serve {METRIC}", 120)
            up_and_down(site, report, row, "requests")


def by_cpu(site: Release, report: Report) -> None:
    """HPA on CPU alone, with nothing but metrics-server."""
    with report.row("autoscaling on CPU alone") as row:
        site.upgrade({"autoscaling": _scaling(60, None)})
        up_and_down(site, report, row, "cpu")


def by_keda(site: Release, report: Report) -> None:
    """A ScaledObject that asks Prometheus."""
    with report.row("autoscaling through KEDA") as row:
        if site.target.program is None:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER, which brings KEDA")
            return
        site.target.cluster("keda")
        keda = {
            "enabled": True,
            "serverAddress": PROMETHEUS,
            "targetRequestsPerSecond": A_POD,
            "pollingInterval": 5,
            "minReplicas": FEWEST,
            "maxReplicas": MOST,
        }
        site.upgrade({"autoscaling": {"enabled": False}, "keda": keda})
        up_and_down(site, report, row, "keda")


def up_and_down(site: Release, report: Report, row: Row, name: str) -> None:
    """Load that rises and falls; pods follow, and no request fails over it."""
    with site.load(CALM) as load, timeline.Recorder(site, load) as recorder:
        time.sleep(10)
        load.rate, began = BUSY, time.monotonic()
        wait_for(lambda: len(site.kube.alive("api")) >= ENOUGH, f"{ENOUGH} API pods", UP_SECONDS)
        row.notes.append(f"{ENOUGH} pods ready after {time.monotonic() - began:.0f} s")
        time.sleep(10)
        load.rate, began = CALM, time.monotonic()
        wait_for(lambda: _calm(site), f"{FEWEST} API pods", DOWN_SECONDS)
        row.notes.append(f"{FEWEST} again {time.monotonic() - began:.0f} s after the load fell")
        time.sleep(5)
        row.figures = load.stop()
    title = row.name[0].upper() + row.name[1:]
    timeline.write(recorder.points, title, report.folder / "e2e" / name)
    report.pictures.append((title, f"{name}.png"))
    row.verdict = site.audit()
    none_failed(row.figures)


def _calm(site: Release) -> bool:
    scale = site.kube.apps.read_namespaced_deployment(NAME, site.namespace)
    return bool(scale.spec.replicas == FEWEST and len(site.kube.pods("api")) == FEWEST)


def _served(site: Release) -> bool:
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{site.namespace}/pods/*/{METRIC}"
    try:
        return bool(site.kube.raw(path)["items"])
    except ApiException:
        return False


def _scraped(site: Release) -> bool:
    path = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
    query = f'busyapi_requests_total{{namespace="{site.namespace}"}}'
    return bool(site.kube.raw(path, query=query)["data"]["result"])


@contextmanager
def shipped_rule(site: Release) -> Iterator[None]:
    """Install the shipped rule in the adapter of the shared cluster, then restore its own."""
    core = site.kube.core
    before = core.read_namespaced_config_map("prometheus-adapter", MONITORING).data
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    _adapter(site, {"config.yaml": yaml.safe_dump({"rules": rules})})
    try:
        yield
    finally:
        _adapter(site, before)


def _adapter(site: Release, data: dict[str, str]) -> None:
    """Replace its rules; it reads them when it starts."""
    site.kube.core.patch_namespaced_config_map("prometheus-adapter", MONITORING, {"data": data})
    stamp = {"metadata": {"annotations": {"busyapi.test/rules": str(time.time_ns())}}}
    body = {"spec": {"template": stamp}}
    site.kube.apps.patch_namespaced_deployment("prometheus-adapter", MONITORING, body)

    def restarted() -> bool:
        deployment = site.kube.apps.read_namespaced_deployment("prometheus-adapter", MONITORING)
        status = deployment.status
        seen = (status.observed_generation or 0) >= deployment.metadata.generation
        return bool(seen and status.updated_replicas == status.ready_replicas == status.replicas)

    wait_for(restarted, "the adapter to restart", 120)


SCENARIOS = (start, by_requests, by_cpu, by_keda)
