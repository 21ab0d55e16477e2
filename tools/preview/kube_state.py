"""The series of kube-state-metrics for a namespace, on a cluster without kube-state-metrics.

It has only those that the dashboards read: autoscalers, and pods with their containers.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kubernetes.utils.quantity import parse_quantity
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Get = Callable[[str], Any]
"""A function that gets a path from the API server."""

SCALER = ("namespace", "horizontalpodautoscaler")
POD = ("namespace", "pod")
CONTAINER = (*POD, "container")
QUANTITY: Callable[[str], Any] = parse_quantity
UNITS = {"cpu": "core", "memory": "byte"}


class State(Collector):
    """Gets the state at each scrape."""

    def __init__(self, get: Get, namespace: str) -> None:
        self._get = get
        self._namespace = namespace

    def collect(self) -> Iterable[Metric]:
        """Yield all families."""
        scalers = f"/apis/autoscaling/v2/namespaces/{self._namespace}/horizontalpodautoscalers"
        yield from _scalers(self._get(scalers)["items"])
        pods = self._get(f"/api/v1/namespaces/{self._namespace}/pods")["items"]
        yield _ready(pods)
        yield _restarts(pods)
        yield _resources(pods, "requests")
        yield _resources(pods, "limits")


def _scalers(scalers: list[Any]) -> Iterator[Metric]:
    for name, part, key in (
        ("spec_min_replicas", "spec", "minReplicas"),
        ("spec_max_replicas", "spec", "maxReplicas"),
        ("status_current_replicas", "status", "currentReplicas"),
        ("status_desired_replicas", "status", "desiredReplicas"),
    ):
        family = GaugeMetricFamily(f"kube_horizontalpodautoscaler_{name}", key, labels=SCALER)
        for scaler in scalers:
            family.add_metric(_labels(scaler), scaler[part].get(key, 0))
        yield family


def _ready(pods: list[Any]) -> Metric:
    family = GaugeMetricFamily("kube_pod_status_ready", "Ready.", labels=(*POD, "condition"))
    for pod in pods:
        for condition in pod["status"].get("conditions", []):
            if condition["type"] == "Ready":
                is_ready = condition["status"] == "True"
                family.add_metric([*_labels(pod), "true"], is_ready)
    return family


def _restarts(pods: list[Any]) -> Metric:
    family = CounterMetricFamily(
        "kube_pod_container_status_restarts", "Restarts.", labels=CONTAINER
    )
    for pod in pods:
        for container in pod["status"].get("containerStatuses", []):
            family.add_metric([*_labels(pod), container["name"]], container["restartCount"])
    return family


def _resources(pods: list[Any], kind: str) -> Metric:
    labels = (*CONTAINER, "resource", "unit")
    family = GaugeMetricFamily(f"kube_pod_container_resource_{kind}", kind, labels=labels)
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for resource, amount in container.get("resources", {}).get(kind, {}).items():
                if unit := UNITS.get(resource):
                    names = [*_labels(pod), container["name"], resource, unit]
                    family.add_metric(names, float(QUANTITY(amount)))
    return family


def _labels(document: Any) -> list[str]:
    return [document["metadata"]["namespace"], document["metadata"]["name"]]
