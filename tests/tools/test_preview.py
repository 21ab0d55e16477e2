"""`make dashboards-preview`: every kind of panel is drawn, and one that lacks data is told."""

import copy
import json
from pathlib import Path

import pytest

from testkit.chart.rendering import CHART, Json
from tools.preview.canvas import NAMED, shorten, width
from tools.preview.draw import draw
from tools.preview.kube_state import State
from tools.preview.panel_kinds import by_steps
from tools.preview.panel_queries import Choice, Curve

CHOICE = Choice("", 0, 60, 1, "5s", "patients", "inhalers")
TIMES = [float(at) for at in range(61)]


def board(name: str) -> Json:
    loaded: Json = json.loads((CHART / "dashboards" / f"{name}.json").read_text())
    return loaded


def some(panel: Json) -> list[Curve]:
    """Give a panel the curves that it would have of a stack at work."""
    if panel["type"] == "heatmap":
        bounds = ("0.005", "0.05", "+Inf")
        return [
            Curve(le, {"le": le}, [(at, 10.0 * n) for at in TIMES]) for n, le in enumerate(bounds)
        ]
    labels = {"alertname": "BusyapiFlusherStuck", "severity": "critical", "partition": "0"}
    return [Curve(f"series {n}", labels, [(at, at * n) for at in TIMES]) for n in range(6)]


@pytest.mark.parametrize("name", ["overview", "data-path", "resources"])
def test_a_dashboard_with_data_is_drawn_and_nothing_is_missing(name: str, tmp_path: Path) -> None:
    dashboard = board(name)
    answers = {each["id"]: some(each) for each in dashboard["panels"] if each["type"] != "row"}
    assert draw(dashboard, answers, CHOICE, tmp_path / "picture.png") == []
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_panel_that_lacks_data_is_told(tmp_path: Path) -> None:
    bare = draw(board("overview"), {}, CHOICE, tmp_path / "picture.png")
    assert "Requests by status" in bare
    assert "Firing alerts" not in bare


def test_a_panel_that_needs_a_cluster_may_be_without_data(tmp_path: Path) -> None:
    dashboard = board("resources")
    assert draw(dashboard, {}, CHOICE, tmp_path / "picture.png") == ["Requests per second by pod"]
    careless = copy.deepcopy(dashboard)
    for each in careless["panels"]:
        each["description"] = "What it shows."
    bare = draw(careless, {}, CHOICE, tmp_path / "picture.png")
    assert "API pods" in bare


@pytest.mark.parametrize(("value", "color"), [(-8, "red"), (0, "yellow"), (0.7, "green")])
def test_a_number_has_the_colour_of_the_step_that_it_has_reached(value: float, color: str) -> None:
    budget = next(each for each in board("overview")["panels"] if "budget left" in each["title"])
    steps = budget["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert by_steps(value, steps) == NAMED[color]


def test_the_state_of_a_namespace_has_the_names_of_kube_state_metrics() -> None:
    meta = {"namespace": "usages", "name": "busyapi"}
    replicas = {"minReplicas": 2, "maxReplicas": 4}, {"currentReplicas": 2, "desiredReplicas": 3}
    container = {"name": "api", "resources": {"requests": {"cpu": "60m", "memory": "64Mi"}}}
    ready = {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "api", "restartCount": 1}],
    }
    told = {
        "/apis/autoscaling/v2/namespaces/usages/horizontalpodautoscalers": {
            "metadata": meta,
            "spec": replicas[0],
            "status": replicas[1],
        },
        "/api/v1/namespaces/usages/pods": {
            "metadata": meta,
            "spec": {"containers": [container]},
            "status": ready,
        },
    }
    state = State(lambda path: {"items": [told[path]]}, "usages")
    samples = {
        (s.name, *s.labels.values()): s.value for each in state.collect() for s in each.samples
    }
    of = ("usages", "busyapi")
    assert samples == {
        ("kube_horizontalpodautoscaler_spec_min_replicas", *of): 2,
        ("kube_horizontalpodautoscaler_spec_max_replicas", *of): 4,
        ("kube_horizontalpodautoscaler_status_current_replicas", *of): 2,
        ("kube_horizontalpodautoscaler_status_desired_replicas", *of): 3,
        ("kube_pod_status_ready", *of, "true"): 0,
        ("kube_pod_container_status_restarts_total", *of, "api"): 1,
        ("kube_pod_container_resource_requests", *of, "api", "cpu", "core"): 0.06,
        ("kube_pod_container_resource_requests", *of, "api", "memory", "byte"): 64 * 2**20,
    }


@pytest.mark.parametrize("room", [20, 60, 300])
def test_a_text_is_cut_to_its_room(room: int) -> None:
    text = shorten("busyapi-flusher-0 of the partition 0", 8, room)
    assert text.endswith("…") or room == 300
    assert width(text, 8) <= room + width("…", 8)
