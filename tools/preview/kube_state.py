"""What kube-state-metrics tells of a namespace, under its names, for a cluster without it.

Only what the dashboards read: autoscalers, and pods with their containers.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kubernetes.utils.quantity import parse_quantity
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Get = Callable[[str], Any]
"""Asks the API server for a path."""

SCALER = ("namespace", "horizontalpodautoscaler")
POD = ("namespace", "pod")
CONTAINER = (*POD, "container")
QUANTITY: Callable[[str], Any] = parse_quantity
UNITS = {"cpu": "core", "memory": "byte"}


class State(Collector):
    """Asks anew at each scrape."""

    def __init__(self, get: Get, namespace: str) -> None:
        self._get = get
        self._namespace = namespace

    def collect(self) -> Iterable[Metric]:
        """Give all of it."""
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
        told = GaugeMetricFamily(f"kube_horizontalpodautoscaler_{name}", key, labels=SCALER)
        for each in scalers:
            told.add_metric(_of(each), each[part].get(key, 0))
        yield told


def _ready(pods: list[Any]) -> Metric:
    told = GaugeMetricFamily("kube_pod_status_ready", "Ready.", labels=(*POD, "condition"))
    for each in pods:
        for condition in each["status"].get("conditions", []):
            if condition["type"] == "Ready":
                is_so = condition["status"] == "True"
                told.add_metric([*_of(each), "true"], is_so)
    return told


def _restarts(pods: list[Any]) -> Metric:
    told = CounterMetricFamily("kube_pod_container_status_restarts", "Restarts.", labels=CONTAINER)
    for each in pods:
        for container in each["status"].get("containerStatuses", []):
            told.add_metric([*_of(each), container["name"]], container["restartCount"])
    return told


def _resources(pods: list[Any], kind: str) -> Metric:
    labels = (*CONTAINER, "resource", "unit")
    told = GaugeMetricFamily(f"kube_pod_container_resource_{kind}", kind, labels=labels)
    for each in pods:
        for container in each["spec"]["containers"]:
            for resource, amount in container.get("resources", {}).get(kind, {}).items():
                if unit := UNITS.get(resource):
                    names = [*_of(each), container["name"], resource, unit]
                    told.add_metric(names, float(QUANTITY(amount)))
    return told


def _of(thing: Any) -> list[str]:
    return [thing["metadata"]["namespace"], thing["metadata"]["name"]]
