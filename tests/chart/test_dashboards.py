"""The chart's dashboards are up to date, valid for Grafana, and have valid queries."""

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.dashboards.board import COLUMNS, UIDS
from testkit.chart.rendering import CHART, ROOT, Json, of_kind, render, render_with_helm3
from testkit.prometheus import PROMTOOL
from tools.preview.panel_queries import Choice
from tools.preview.units import format_value

DASHBOARDS = CHART / "dashboards"
NAMES = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
KNOWN = {"datasource", "namespace", "release", "partition", "runbooks", "__rate_interval"}
"""Variables. With an unknown one a panel in Grafana is empty, without an error."""
MAX_PICTURE_BYTES = 400_000
MIN_DESCRIPTION = 60
ON: Json = {"metrics": {"dashboards": {"enabled": True}}}


def load_dashboard(name: str) -> Json:
    dashboard: Json = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return dashboard


def list_panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def find_defects(board: Json) -> Iterator[str]:
    """Yield the defects of a dashboard."""
    ids = [panel["id"] for panel in board["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    for panel, other in combinations(board["panels"], 2):
        if overlap(panel["gridPos"], other["gridPos"]):
            yield f"{panel['title']} and {other['title']} overlap"
    for panel in board["panels"]:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > COLUMNS:
            yield f"{panel['title']} is beyond the edge"
    for panel in list_panels(board):
        yield from (f"{panel['title']}: {defect}" for defect in find_panel_defects(panel))
    for name in set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - KNOWN - {"__value", "__all"}:
        yield f"there is no variable {name}"


def find_panel_defects(panel: Json) -> Iterator[str]:
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "no unit"
    if not panel["title"]:
        yield "no title"
    if len(panel["description"]) < MIN_DESCRIPTION or not panel["description"].endswith("."):
        yield "no description"
    if not panel["targets"] or not all(target["expr"] for target in panel["targets"]):
        yield "no query"
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    if any(source["uid"] != "${datasource}" for source in sources):
        yield "a fixed data source"


def overlap(panel: Json, other: Json) -> bool:
    return all(
        panel[at] < other[at] + other[size] and other[at] < panel[at] + panel[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_has_a_unit_a_description_a_query_and_a_position(name: str) -> None:
    assert [*find_defects(load_dashboard(name))] == []


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"fieldConfig": {"defaults": {}}}, "no unit"),
        ({"title": ""}, "no title"),
        ({"description": "Requests."}, "no description"),
        ({"targets": []}, "no query"),
        ({"datasource": {"type": "prometheus", "uid": "P123"}}, "a fixed data source"),
        ({"id": 1}, "one id"),
        ({"gridPos": {"x": 20, "y": 1, "w": 6, "h": 4}}, "overlap"),
        ({"gridPos": {"x": 20, "y": 500, "w": 6, "h": 4}}, "beyond the edge"),
        (
            {"description": "${DS_PROMETHEUS} " + "that an export leaves behind " * 3},
            "DS_PROMETHEUS",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_defect_is_found(change: Json, defect: str) -> None:
    board = copy.deepcopy(load_dashboard("overview"))
    list_panels(board)[0].update(change)
    assert defect in " ".join(find_defects(board))


def test_dashboards_keep_their_uids() -> None:
    assert {load_dashboard(name)["title"]: load_dashboard(name)["uid"] for name in NAMES} == {
        "busyapi / Overview": "busyapi-overview",
        "busyapi / Data path": "busyapi-data-path",
        "busyapi / Autoscaling and resources": "busyapi-resources",
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_dashboard_links_to_the_other_two(name: str) -> None:
    board = load_dashboard(name)
    others = {f"/d/{uid}" for uid in UIDS.values()} - {f"/d/{board['uid']}"}
    assert {link["url"] for link in board["links"]} == others
    assert all(link["includeVars"] and link["keepTime"] for link in board["links"])


def load_rules() -> list[Json]:
    groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def find_linked_alerts(boards: list[Json]) -> set[str]:
    """Return the alerts whose runbooks are linked from panels."""
    links = [
        link["url"] for board in boards for panel in list_panels(board) for link in panel["links"]
    ]
    return {re.fullmatch(r"\$\{runbooks\}(\w+)\.md", url)[1] for url in links}  # type: ignore[index]


def test_panels_link_to_the_runbook_of_every_alert_and_to_no_other() -> None:
    alerts = {rule["alert"] for rule in load_rules() if "alert" in rule}
    assert find_linked_alerts([load_dashboard(name) for name in NAMES]) == alerts


def test_every_recording_rule_that_a_panel_reads_exists() -> None:
    recorded = {rule["record"] for rule in load_rules() if "record" in rule}
    read = set(re.findall(r"busyapi:\w+:\w+", "".join(map(str, map(load_dashboard, NAMES)))))
    assert read
    assert read <= recorded


def check_queries(expressions: list[str], folder: Path) -> str:
    """Return promtool's error about queries. It reads queries only in rules."""
    path = folder / "rules.yaml"
    rule = [
        {"record": f"query:{n}", "expr": expression} for n, expression in enumerate(expressions)
    ]
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rule}]}))
    command = [str(PROMTOOL), "check", "rules", str(path)]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return process.stderr if process.returncode else ""


def list_expressions(name: str) -> list[str]:
    choice = Choice("", 0, 60, 1, "1m", "usages", "busyapi")
    targets = [target for panel in list_panels(load_dashboard(name)) for target in panel["targets"]]
    return [choice.fill(target["expr"]) for target in targets]


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_valid_for_prometheus(name: str, tmp_path: Path) -> None:
    assert check_queries(list_expressions(name), tmp_path) == ""


def test_invalid_query_is_found(tmp_path: Path) -> None:
    broken = [*list_expressions("overview"), "sum(rate(busyapi_requests_total)"]
    assert "could not parse expression" in check_queries(broken, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_preview_knows_every_unit(name: str) -> None:
    for panel in list_panels(load_dashboard(name)):
        assert format_value(1.5, panel["fieldConfig"]["defaults"]["unit"])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"),
        (0.00025, "s", "250 µs"),
        (0.0123, "s", "12.3 ms"),
        (90, "s", "1.5 min"),
        (2.5, "d", "2.5 days"),
        (16_667, "reqps", "16.7 K req/s"),
        (0.99923, "percentunit", "99.9%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (2_500, "Bps", "2.5 kB/s"),
        (1_000_000, "short", "1 Mil"),
        (12, "suffix: usages/s", "12 usages/s"),
    ],
)
def test_value_is_formatted_as_in_grafana(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


@pytest.mark.parametrize("by_helm", [render, render_with_helm3], ids=["helm 4", "helm 3"])
def test_each_dashboard_has_a_config_map_for_the_sidecar(by_helm: Any) -> None:
    maps = [
        config_map
        for config_map in of_kind(by_helm(ON), "ConfigMap")
        if "-dashboard-" in str(config_map)
    ]
    assert {config_map["metadata"]["name"] for config_map in maps} == {
        f"busyapi-dashboard-{name}" for name in NAMES
    }
    for config_map in maps:
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config_map["metadata"]["annotations"] == {"grafana_folder": "busyapi"}
        ((name, text),) = config_map["data"].items()
        assert json.loads(text)["uid"] == name.removesuffix(".json")


def test_config_maps_can_be_in_the_namespace_of_the_sidecar() -> None:
    values = copy.deepcopy(ON)
    values["metrics"]["dashboards"] |= {
        "namespace": "monitoring",
        "labels": {"grafana_dashboard": "yes"},
        "annotations": {"grafana_folder": "Devices"},
    }
    for config_map in of_kind(render(values), "ConfigMap"):
        if "-dashboard-" in config_map["metadata"]["name"]:
            assert config_map["metadata"]["namespace"] == "monitoring"
            assert config_map["metadata"]["labels"]["grafana_dashboard"] == "yes"
            assert config_map["metadata"]["annotations"] == {"grafana_folder": "Devices"}


def test_no_dashboard_is_installed_by_default() -> None:
    assert not [
        config_map
        for config_map in of_kind(render(), "ConfigMap")
        if "-dashboard-" in str(config_map)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_dashboard_has_a_small_picture_in_the_docs(name: str) -> None:
    picture = ROOT / "docs" / "reference" / "dashboards" / f"{name}.png"
    assert picture.stat().st_size < MAX_PICTURE_BYTES
    assert f"dashboards/{name}.png" in (ROOT / "docs" / "reference" / "dashboards.md").read_text()


def test_chart_contains_the_dashboards() -> None:
    ignored = (CHART / ".helmignore").read_text().splitlines()
    assert not [pattern for pattern in ignored if "dashboards" in pattern or "json" in pattern]
