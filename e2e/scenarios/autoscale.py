"""Scale the API with its load: by requests a second, by CPU alone, and by KEDA.

The targets are low, so that a load that two cores can serve needs more pods.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import yaml
from kubernetes.client import ApiException

from e2e import timeline
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.openloop import OpenLoop
from e2e.release import NAME, Release
from e2e.report import Report, Row
from e2e.scenarios.observability import LOADED_SECONDS
from e2e.target import ROOT

ADAPTER = ROOT / "k8s" / "observability" / "prometheus-adapter.yaml"
MONITORING = "monitoring"
PROMETHEUS = "http://prometheus.monitoring:9090"
LOW_RATE, HIGH_RATE = 20.0, 300.0
"""Requests a second."""
REQUESTS_PER_POD = 40
"""Requests a second per pod. An HPA tolerates 10 % more or less, so 300 need seven pods or eight,
also if the measured rate is 6 % off."""
MIN_PODS, MAX_PODS = 2, 10
RISES = 3
"""How often the load rises. The median counts: a rise falls at any time between two scrapes, and
between two decisions of the HPA."""


class Needed(NamedTuple):
    """What the high load needs."""

    pods: int
    max_pods: int
    """The HPA may not want more."""
    seconds: float
    """From a rise of the load until `pods` are ready."""
    first_seconds: float = 12
    """Until one more pod is ready."""


BY_REQUESTS = Needed(7, 8, 20)
BY_CPU = Needed(4, MAX_PODS, 30, first_seconds=25)
"""CPU alone is slower than the goal, whatever the chart says: metrics-server reports the mean of
its last window (10 seconds here), so the HPA sees all of a rise only when a window has passed that
began after it. The CPU of a start counts as load."""
STEADY_SECONDS = 20
"""How long the load stays high after that. No pod may be removed, and none above the need added."""
SCALE_UP_SECONDS = 150
SCALE_DOWN_SECONDS = 240
METRIC = "busyapi_requests_per_second"
FAST_SCALE_DOWN = {
    "stabilizationWindowSeconds": 15,
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
}
"""The chart's default removes a pod a minute, after five minutes."""
SMALL: dict[str, Any] = {
    "resources": {"requests": {"cpu": "60m"}},
    "metrics": {"podMonitor": {"enabled": True}},
}


def install(release: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for autoscaling"):
        release.install(
            {
                **release.routing_values(),
                **SMALL,
                "autoscaling": _make_scaling(None, REQUESTS_PER_POD),
            }
        )
        release.wait_until_routed()


def _make_scaling(cpu: int | None, requests: int | None) -> dict[str, Any]:
    return {
        "enabled": True,
        "minReplicas": MIN_PODS,
        "maxReplicas": MAX_PODS,
        "targetCPUUtilizationPercentage": cpu,
        "targetRequestsPerSecond": requests,
        "behavior": {"scaleDown": FAST_SCALE_DOWN},
    }


def scale_by_requests(
    release: Release,
    report: Report,
    *,
    picture: str = "requests",
    needed: Needed = BY_REQUESTS,
) -> None:
    """Scale by an HPA on a Pods metric, with the rule of k8s/observability."""
    with report.row("autoscaling on requests a second") as row:
        if release.target.program is None:
            row.skipped = True
            row.notes.append(
                "needs the cluster of E2E_CLUSTER, whose adapter can get busyapi's rule"
            )
            return
        # The adapter lists the series at its start, and the next time much later.
        wait_for(
            lambda: _is_scraped(release), "Prometheus to have the API's series", LOADED_SECONDS
        )
        with install_shipped_rule(release):
            wait_for(
                lambda: _is_metric_served(release), f"the adapter to serve {METRIC}", LOADED_SECONDS
            )
            measure_scaling(release, report, row, picture, needed)


def scale_by_cpu(release: Release, report: Report) -> None:
    """Scale by an HPA on CPU alone, which only needs metrics-server."""
    with report.row("autoscaling on CPU alone") as row:
        release.upgrade({"autoscaling": _make_scaling(60, None)})
        measure_scaling(release, report, row, "cpu", BY_CPU)


def scale_by_keda(release: Release, report: Report) -> None:
    """Scale by a ScaledObject that queries Prometheus."""
    with report.row("autoscaling through KEDA") as row:
        if release.target.program is None:
            row.skipped = True
            row.notes.append("needs the cluster of E2E_CLUSTER, which brings KEDA")
            return
        release.target.cluster("keda")
        keda = {
            "enabled": True,
            "serverAddress": PROMETHEUS,
            "targetRequestsPerSecond": REQUESTS_PER_POD,
            "targetCPUUtilizationPercentage": None,
            "minReplicas": MIN_PODS,
            "maxReplicas": MAX_PODS,
        }
        release.upgrade(
            {"autoscaling": {**_make_scaling(None, None), "enabled": False}, "keda": keda}
        )
        wait_for(
            lambda: _is_scraped(release), "Prometheus to have the API's series", LOADED_SECONDS
        )
        measure_scaling(release, report, row, "keda", BY_REQUESTS)


def measure_scaling(release: Release, report: Report, row: Row, name: str, needed: Needed) -> None:
    """Raise and lower the load. Check that pods follow in time and no request fails."""
    wait_for(lambda: _is_scaled_down(release), "the fewest API pods", SCALE_DOWN_SECONDS)
    with release.load(LOW_RATE) as load, timeline.Recorder(release, load) as recorder:
        rises = [_rise_and_fall(release, row, load, recorder, needed) for _ in range(RISES)]
        row.figures = load.stop()
    title = row.name[0].upper() + row.name[1:]
    timeline.write(recorder.points, title, report.folder / "e2e" / name)
    report.pictures.append((title, f"{name}.png"))
    row.verdict = release.audit()
    require_none_failed(row.figures)
    first, every = (median(times) for times in zip(*rises, strict=True))
    if first > needed.first_seconds or every > needed.seconds:
        raise ScenarioFailed(
            f"too late: the first pod after {first:.1f} s, {needed.pods} after {every:.1f} s"
        )


def _rise_and_fall(
    release: Release,
    row: Row,
    load: OpenLoop,
    recorder: timeline.Recorder,
    needed: Needed,
) -> tuple[float, float]:
    """Return after how many seconds the first additional pod was ready, and enough pods were."""
    fewest = count_fewest_pods(release)
    time.sleep(10)
    load.rate, began = HIGH_RATE, time.monotonic()
    first = _seconds_until(release, began, fewest + 1)
    every = _seconds_until(release, began, needed.pods)
    steady = len(recorder.points)
    time.sleep(STEADY_SECONDS)
    desired = [point.desired for point in recorder.points[steady:]]
    load.rate, began = LOW_RATE, time.monotonic()
    wait_for(lambda: _is_scaled_down(release), "the fewest API pods", SCALE_DOWN_SECONDS)
    row.notes.append(
        f"first additional pod ready after {first:.1f} s, {needed.pods} after {every:.1f} s;"
        f" desired then {min(desired)} to {max(desired)};"
        f" {fewest} again {time.monotonic() - began:.0f} s after the load fell"
    )
    if sorted(desired) != desired or max(desired) > needed.max_pods:
        raise ScenarioFailed(f"too many pods, or fewer under load: {desired}")
    return first, every


def _seconds_until(release: Release, began: float, count: int) -> float:
    wait_for(
        lambda: len(release.kube.list_ready_pods("api")) >= count,
        f"{count} API pods",
        SCALE_UP_SECONDS,
    )
    return time.monotonic() - began


def count_fewest_pods(release: Release) -> int:
    """Return the minimum of the release's autoscaler."""
    keda = release.values.get("keda", {})
    scaler = keda if keda.get("enabled") else release.values["autoscaling"]
    return int(scaler["minReplicas"])


def _is_scaled_down(release: Release) -> bool:
    scale = release.kube.apps.read_namespaced_deployment(NAME, release.namespace)
    fewest = count_fewest_pods(release)
    return bool(scale.spec.replicas == fewest and len(release.kube.pods("api")) == fewest)


def _is_metric_served(release: Release) -> bool:
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{release.namespace}/pods/*/{METRIC}"
    try:
        return bool(release.kube.get_json(path)["items"])
    except ApiException:
        return False


def _is_scraped(release: Release) -> bool:
    path = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
    query = f'busyapi_requests_total{{namespace="{release.namespace}"}}'
    return bool(release.kube.get_json(path, query=query)["data"]["result"])


@contextmanager
def install_shipped_rule(release: Release) -> Iterator[None]:
    """Install the shipped rule in the cluster's adapter, and restore its rules afterwards."""
    core = release.kube.core
    before = core.read_namespaced_config_map("prometheus-adapter", MONITORING).data
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    _replace_adapter_rules(release, {"config.yaml": yaml.safe_dump({"rules": rules})})
    try:
        yield
    finally:
        _replace_adapter_rules(release, before)


def _replace_adapter_rules(release: Release, data: dict[str, str]) -> None:
    """Replace the adapter's rules, and restart it: it reads them when it starts."""
    release.kube.core.patch_namespaced_config_map("prometheus-adapter", MONITORING, {"data": data})
    stamp = {"metadata": {"annotations": {"busyapi.test/rules": str(time.time_ns())}}}
    body = {"spec": {"template": stamp}}
    release.kube.apps.patch_namespaced_deployment("prometheus-adapter", MONITORING, body)

    def is_restarted() -> bool:
        deployment = release.kube.apps.read_namespaced_deployment("prometheus-adapter", MONITORING)
        status = deployment.status
        is_observed = (status.observed_generation or 0) >= deployment.metadata.generation
        return bool(
            is_observed and status.updated_replicas == status.ready_replicas == status.replicas
        )

    wait_for(is_restarted, "the adapter to restart", 120)


SCENARIOS = (install, scale_by_requests, scale_by_cpu, scale_by_keda)
