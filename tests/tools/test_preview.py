"""`make dashboards-preview` draws every kind of panel, and reports a panel that lacks data."""

import copy
import json
from pathlib import Path

import pytest

from testkit.chart.rendering import CHART, Json
from tools.preview.canvas import NAMED, shorten, width
from tools.preview.draw import draw_dashboard
from tools.preview.kube_state import State
from tools.preview.panel_kinds import choose_color
from tools.preview.panel_queries import Choice, Curve

CHOICE = Choice("", 0, 60, 1, "5s", "patients", "inhalers")
TIMES = [float(at) for at in range(61)]


def board(name: str) -> Json:
    content: Json = json.loads((CHART / "dashboards" / f"{name}.json").read_text())
    return content


def make_curves(panel: Json) -> list[Curve]:
    """Return curves as a panel has them for a loaded stack."""
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
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    answers = {panel["id"]: make_curves(panel) for panel in panels}
    assert draw_dashboard(dashboard, answers, CHOICE, tmp_path / "picture.png") == []
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_panel_that_lacks_data_is_reported(tmp_path: Path) -> None:
    missing = draw_dashboard(board("overview"), {}, CHOICE, tmp_path / "picture.png")
    assert "Requests by status" in missing
    assert "Firing alerts" not in missing


def test_a_panel_that_needs_a_cluster_may_be_without_data(tmp_path: Path) -> None:
    dashboard = board("resources")
    assert draw_dashboard(dashboard, {}, CHOICE, tmp_path / "picture.png") == [
        "Requests per second by pod",
        "Single posts on the fast path",
    ]
    undescribed = copy.deepcopy(dashboard)
    for panel in undescribed["panels"]:
        panel["description"] = "What it shows."
    missing = draw_dashboard(undescribed, {}, CHOICE, tmp_path / "picture.png")
    assert "API pods" in missing


@pytest.mark.parametrize(("value", "color"), [(-8, "red"), (0, "yellow"), (0.7, "green")])
def test_a_number_has_the_colour_of_the_step_that_it_has_reached(value: float, color: str) -> None:
    budget = next(panel for panel in board("overview")["panels"] if "budget left" in panel["title"])
    steps = budget["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert choose_color(value, steps) == NAMED[color]


def test_the_state_of_a_namespace_has_the_names_of_kube_state_metrics() -> None:
    meta = {"namespace": "usages", "name": "busyapi"}
    replicas = {"minReplicas": 2, "maxReplicas": 4}, {"currentReplicas": 2, "desiredReplicas": 3}
    container = {"name": "api", "resources": {"requests": {"cpu": "60m", "memory": "64Mi"}}}
    ready = {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "api", "restartCount": 1}],
    }
    items = {
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
    state = State(lambda path: {"items": [items[path]]}, "usages")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in state.collect()
        for sample in family.samples
    }
    labels = ("usages", "busyapi")
    assert samples == {
        ("kube_horizontalpodautoscaler_spec_min_replicas", *labels): 2,
        ("kube_horizontalpodautoscaler_spec_max_replicas", *labels): 4,
        ("kube_horizontalpodautoscaler_status_current_replicas", *labels): 2,
        ("kube_horizontalpodautoscaler_status_desired_replicas", *labels): 3,
        ("kube_pod_status_ready", *labels, "true"): 0,
        ("kube_pod_container_status_restarts_total", *labels, "api"): 1,
        ("kube_pod_container_resource_requests", *labels, "api", "cpu", "core"): 0.06,
        ("kube_pod_container_resource_requests", *labels, "api", "memory", "byte"): 64 * 2**20,
    }


@pytest.mark.parametrize("room", [20, 60, 300])
def test_a_text_is_shortened_to_its_room(room: int) -> None:
    text = shorten("busyapi-flusher-0 of the partition 0", 8, room)
    assert text.endswith("…") or room == 300
    assert width(text, 8) <= room + width("…", 8)
