"""The API scales up and down with its load: by requests a second, by CPU alone, by KEDA.

Each pod may use a fifth of a core, so that a load on two cores needs more pods.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from kubernetes.client import ApiException

from e2e import timeline
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.release import NAME, Release
from e2e.report import Report, Row
from e2e.target import ROOT

ADAPTER = ROOT / "k8s" / "observability" / "prometheus-adapter.yaml"
MONITORING = "monitoring"
PROMETHEUS = "http://prometheus.monitoring:9090"
CALM_RATE, BUSY_RATE = 20.0, 300.0
"""Requests a second."""
REQUESTS_PER_POD = 38
"""Requests a second of one pod, above which another is needed: 300 need eight."""
MIN_PODS, MAX_PODS, NEEDED = 2, 10, 8
ENOUGH_FOR_CPU = 4
MAX_FIRST_SECONDS, MAX_ALL_SECONDS = 12, 20
"""After the load has risen: until one more pod is ready, and until all are."""
STEADY_SECONDS = 20
"""The load stays high for this time after that: no pod may be added or removed."""
UP_SECONDS = 150
DOWN_SECONDS = 240
METRIC = "busyapi_requests_per_second"
QUICK_DOWN = {
    "stabilizationWindowSeconds": 15,
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
}
"""The chart's default removes a pod a minute, after five minutes."""
SMALL: dict[str, Any] = {
    "resources": {"requests": {"cpu": "60m"}, "limits": {"cpu": "200m"}},
    "metrics": {"podMonitor": {"enabled": True}},
}


def install(site: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for autoscaling"):
        site.install(
            {**site.routing_values(), **SMALL, "autoscaling": _scaling(None, REQUESTS_PER_POD)}
        )
        site.wait_routed()


def _scaling(cpu: int | None, requests: int | None) -> dict[str, Any]:
    return {
        "enabled": True,
        "minReplicas": MIN_PODS,
        "maxReplicas": MAX_PODS,
        "targetCPUUtilizationPercentage": cpu,
        "targetRequestsPerSecond": requests,
        "behavior": {"scaleDown": QUICK_DOWN},
    }


def by_requests(site: Release, report: Report) -> None:
    """Scale by an HPA on a Pods metric, with the rule of k8s/observability."""
    with report.row("autoscaling on requests a second") as row:
        if site.target.program is None:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER: its adapter gets busyapi's rule")
            return
        # The adapter lists the series when it starts, and again only long after that.
        wait_for(lambda: _is_scraped(site), "Prometheus to have the API's series", 120)
        with install_shipped_rule(site):
            wait_for(lambda: _is_metric_served(site), f"the adapter to serve {METRIC}", 120)
            measure_scaling(site, report, row, "requests", NEEDED)


def by_cpu(site: Release, report: Report) -> None:
    """Scale by an HPA on CPU alone, which only needs metrics-server."""
    with report.row("autoscaling on CPU alone") as row:
        site.upgrade({"autoscaling": _scaling(60, None)})
        measure_scaling(site, report, row, "cpu", ENOUGH_FOR_CPU)


def by_keda(site: Release, report: Report) -> None:
    """Scale by a ScaledObject that queries Prometheus."""
    with report.row("autoscaling through KEDA") as row:
        if site.target.program is None:
            row.left_out = True
            row.notes.append("needs the cluster of E2E_CLUSTER, which brings KEDA")
            return
        site.target.cluster("keda")
        keda = {
            "enabled": True,
            "serverAddress": PROMETHEUS,
            "targetRequestsPerSecond": REQUESTS_PER_POD,
            "targetCPUUtilizationPercentage": None,
            "minReplicas": MIN_PODS,
            "maxReplicas": MAX_PODS,
        }
        site.upgrade({"autoscaling": {**_scaling(None, None), "enabled": False}, "keda": keda})
        measure_scaling(site, report, row, "keda", NEEDED)


def measure_scaling(site: Release, report: Report, row: Row, name: str, needed: int) -> None:
    """Raise the load and lower it again: pods follow in time, and no request fails."""
    with site.load(CALM_RATE) as load, timeline.Recorder(site, load) as recorder:
        time.sleep(10)
        load.rate, began = BUSY_RATE, time.monotonic()
        first = _seconds_until(site, began, MIN_PODS + 1)
        every = _seconds_until(site, began, needed)
        row.notes.append(f"first additional pod ready after {first:.1f} s, {needed} {every:.1f} s")
        steady = len(recorder.points)
        time.sleep(STEADY_SECONDS)
        desired = [point.desired for point in recorder.points[steady:]]
        load.rate, began = CALM_RATE, time.monotonic()
        wait_for(lambda: _is_scaled_down(site), f"{MIN_PODS} API pods", DOWN_SECONDS)
        row.notes.append(f"{MIN_PODS} again {time.monotonic() - began:.0f} s after the load fell")
        time.sleep(5)
        row.figures = load.stop()
    row.notes.append(f"pods asked for while the load was high: {min(desired)} to {max(desired)}")
    title = row.name[0].upper() + row.name[1:]
    timeline.write(recorder.points, title, report.folder / "e2e" / name)
    report.pictures.append((title, f"{name}.png"))
    row.verdict = site.audit()
    require_none_failed(row.figures)
    if first > MAX_FIRST_SECONDS or every > MAX_ALL_SECONDS:
        raise ScenarioFailed(
            f"too late: the first pod after {first:.1f} s, {needed} after {every:.1f} s"
        )
    if sorted(desired) != desired or (needed == NEEDED and max(desired) > needed):
        raise ScenarioFailed(f"too many pods, or fewer under load: {desired}")


def _seconds_until(site: Release, began: float, count: int) -> float:
    wait_for(
        lambda: len(site.kube.list_ready_pods("api")) >= count, f"{count} API pods", UP_SECONDS
    )
    return time.monotonic() - began


def _is_scaled_down(site: Release) -> bool:
    scale = site.kube.apps.read_namespaced_deployment(NAME, site.namespace)
    return bool(scale.spec.replicas == MIN_PODS and len(site.kube.pods("api")) == MIN_PODS)


def _is_metric_served(site: Release) -> bool:
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{site.namespace}/pods/*/{METRIC}"
    try:
        return bool(site.kube.get_json(path)["items"])
    except ApiException:
        return False


def _is_scraped(site: Release) -> bool:
    path = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
    query = f'busyapi_requests_total{{namespace="{site.namespace}"}}'
    return bool(site.kube.get_json(path, query=query)["data"]["result"])


@contextmanager
def install_shipped_rule(site: Release) -> Iterator[None]:
    """Install the shipped rule in the cluster's adapter, and restore its rules afterwards."""
    core = site.kube.core
    before = core.read_namespaced_config_map("prometheus-adapter", MONITORING).data
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    _replace_adapter_rules(site, {"config.yaml": yaml.safe_dump({"rules": rules})})
    try:
        yield
    finally:
        _replace_adapter_rules(site, before)


def _replace_adapter_rules(site: Release, data: dict[str, str]) -> None:
    """Replace the adapter's rules, and restart it: it reads them when it starts."""
    site.kube.core.patch_namespaced_config_map("prometheus-adapter", MONITORING, {"data": data})
    stamp = {"metadata": {"annotations": {"busyapi.test/rules": str(time.time_ns())}}}
    body = {"spec": {"template": stamp}}
    site.kube.apps.patch_namespaced_deployment("prometheus-adapter", MONITORING, body)

    def is_restarted() -> bool:
        deployment = site.kube.apps.read_namespaced_deployment("prometheus-adapter", MONITORING)
        status = deployment.status
        is_observed = (status.observed_generation or 0) >= deployment.metadata.generation
        return bool(
            is_observed and status.updated_replicas == status.ready_replicas == status.replicas
        )

    wait_for(is_restarted, "the adapter to restart", 120)


SCENARIOS = (install, by_requests, by_cpu, by_keda)
