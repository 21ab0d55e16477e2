"""Exactly one of Deployment, HorizontalPodAutoscaler and KEDA sets the number of API pods."""

import re
from pathlib import Path

import pytest

from testkit.chart.rendering import MODES, Json, find_object, mode_name, of_kind, render, values_of

FIXED: Json = {"autoscaling": {"enabled": False}}
KEDA: Json = FIXED | {"keda": {"enabled": True, "serverAddress": "http://prometheus:9090"}}
ALL_TARGETS: Json = {
    "autoscaling": {
        "targetCPUUtilizationPercentage": 60,
        "targetMemoryUtilizationPercentage": 80,
        "targetRequestsPerSecond": 500,
    }
}


def render_hpa(values: Json | None = None) -> Json:
    spec: Json = find_object(render(values), "HorizontalPodAutoscaler", "busyapi")["spec"]
    return spec


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_deployment_sets_replicas_only_without_an_autoscaler(mode: Path) -> None:
    documents = render(values_of(mode))
    scalers = [*of_kind(documents, "HorizontalPodAutoscaler"), *of_kind(documents, "ScaledObject")]
    deployment = find_object(documents, "Deployment", "busyapi")
    assert len(scalers) == ("replicas" not in deployment["spec"])
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": deployment["metadata"]["name"],
        }


def test_replica_count_is_used_without_an_autoscaler() -> None:
    assert (
        find_object(render(FIXED | {"replicaCount": 3}), "Deployment", "busyapi")["spec"][
            "replicas"
        ]
        == 3
    )


def test_default_autoscaler_uses_only_cpu() -> None:
    (metric,) = render_hpa()["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert render_hpa()["minReplicas"] >= 2


def test_metrics_are_memory_then_cpu_then_requests() -> None:
    metrics = render_hpa(ALL_TARGETS)["metrics"]
    assert [metric.get("resource", {}).get("name") for metric in metrics] == ["memory", "cpu", None]
    assert metrics[2]["pods"] == {
        "metric": {"name": "busyapi_requests_per_second"},
        "target": {"type": "AverageValue", "averageValue": "500"},
    }


def test_scaling_is_fast_up_and_slow_down() -> None:
    behavior = render_hpa()["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert up["selectPolicy"] == "Max"
    assert {"type": "Percent", "value": 300, "periodSeconds": 15} in up["policies"]
    assert {"type": "Pods", "value": 4, "periodSeconds": 15} in up["policies"]
    assert down["stabilizationWindowSeconds"] == 300


def test_new_pod_gets_requests_within_a_second_of_being_ready() -> None:
    (container,) = find_object(render(), "Deployment", "busyapi")["spec"]["template"]["spec"][
        "containers"
    ]
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] == 1
    # A server that restarts within nine seconds costs no endpoint.
    assert probe["failureThreshold"] == 9


def test_keda_keeps_its_pods_without_metrics() -> None:
    spec = find_object(render(KEDA), "ScaledObject", "busyapi")["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    requests, cpu = spec["triggers"]
    assert requests["type"] == "prometheus"
    assert requests["metadata"]["ignoreNullValues"] == "false"
    assert cpu == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == render_hpa()["behavior"]


def test_keda_can_leave_out_cpu() -> None:
    values = KEDA | {"keda": KEDA["keda"] | {"targetCPUUtilizationPercentage": None}}
    (trigger,) = find_object(render(values), "ScaledObject", "busyapi")["spec"]["triggers"]
    assert trigger["type"] == "prometheus"


def test_keda_query_selects_this_release() -> None:
    query = keda_query(KEDA)
    assert 'namespace="usages"' in query
    pod = re.search(r'pod=~"([^"]+)"', query)
    assert pod
    assert re.fullmatch(pod[1], "busyapi-6d4cf56db6-x7k2p")
    assert not re.fullmatch(pod[1], "other-6d4cf56db6-x7k2p")


def test_keda_rate_can_have_another_window() -> None:
    values = KEDA | {"keda": KEDA["keda"] | {"window": "90s"}}
    assert re.findall(r"\[(\w+)\]", keda_query(values)) == ["90s"]


def keda_query(values: Json) -> str:
    triggers = find_object(render(values), "ScaledObject", "busyapi")["spec"]["triggers"]
    query: str = triggers[0]["metadata"]["query"]
    return query


@pytest.mark.parametrize(
    ("values", "exists"),
    [
        ({}, True),
        (FIXED | {"replicaCount": 2}, True),
        (FIXED | {"replicaCount": 1}, False),
        ({"autoscaling": {"minReplicas": 1, "maxReplicas": 1}}, False),
        ({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}, True),
        (KEDA, True),
        (KEDA | {"keda": KEDA["keda"] | {"minReplicas": 1, "maxReplicas": 1}}, False),
        ({"podDisruptionBudget": {"enabled": False}}, False),
    ],
)
def test_disruption_budget_exists_only_if_there_can_be_two_pods(
    values: Json,
    exists: bool,  # noqa: FBT001
) -> None:
    budgets = of_kind(render(values), "PodDisruptionBudget")
    assert bool(budgets) is exists
    for budget in budgets:
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["spec"]["maxUnavailable"] == 1


def test_disruption_budget_can_use_min_available() -> None:
    values = {"podDisruptionBudget": {"minAvailable": "50%"}}
    (budget,) = of_kind(render(values), "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == "50%"
    assert "maxUnavailable" not in budget["spec"]
