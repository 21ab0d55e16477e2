"""The chart's dashboards: what the code makes, as Grafana takes it, with sound queries."""

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
from testkit.chart.rendering import CHART, ROOT, Json, of_kind, render, render3
from testkit.prometheus import PROMTOOL
from tools.preview.panel_queries import Choice
from tools.preview.units import written

DASHBOARDS = CHART / "dashboards"
NAMES = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
KNOWN = {"datasource", "namespace", "release", "partition", "runbooks", "__rate_interval"}
"""Variables; one that is not there is an empty panel in Grafana, without an error."""
LARGEST_PICTURE = 400_000
SHORTEST_DESCRIPTION = 60
ON: Json = {"metrics": {"dashboards": {"enabled": True}}}


def dashboard(name: str) -> Json:
    loaded: Json = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return loaded


def panels(board: Json) -> list[Json]:
    return [each for each in board["panels"] if each["type"] != "row"]


def defects(board: Json) -> Iterator[str]:
    """Say what is wrong with a dashboard."""
    ids = [each["id"] for each in board["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    for one, other in combinations(board["panels"], 2):
        if overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']} and {other['title']} overlap"
    for panel in board["panels"]:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > COLUMNS:
            yield f"{panel['title']} is beyond the edge"
    for panel in panels(board):
        yield from (f"{panel['title']}: {each}" for each in panel_defects(panel))
    for name in set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - KNOWN - {"__value", "__all"}:
        yield f"there is no variable {name}"


def panel_defects(panel: Json) -> Iterator[str]:
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "no unit"
    if not panel["title"]:
        yield "no title"
    if len(panel["description"]) < SHORTEST_DESCRIPTION or not panel["description"].endswith("."):
        yield "no description"
    if not panel["targets"] or not all(each["expr"] for each in panel["targets"]):
        yield "no query"
    sources = [panel["datasource"], *(each["datasource"] for each in panel["targets"])]
    if any(each["uid"] != "${datasource}" for each in sources):
        yield "a data source of its own"


def overlap(one: Json, other: Json) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_has_a_unit_a_description_a_query_and_a_place(name: str) -> None:
    assert [*defects(dashboard(name))] == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"fieldConfig": {"defaults": {}}}, "no unit"),
        ({"title": ""}, "no title"),
        ({"description": "Requests."}, "no description"),
        ({"targets": []}, "no query"),
        ({"datasource": {"type": "prometheus", "uid": "P123"}}, "a data source of its own"),
        ({"id": 1}, "one id"),
        ({"gridPos": {"x": 20, "y": 1, "w": 6, "h": 4}}, "overlap"),
        ({"gridPos": {"x": 20, "y": 500, "w": 6, "h": 4}}, "beyond the edge"),
        (
            {"description": "${DS_PROMETHEUS} " + "that an export leaves behind " * 3},
            "DS_PROMETHEUS",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_defect_is_found(change: Json, found: str) -> None:
    board = copy.deepcopy(dashboard("overview"))
    panels(board)[0].update(change)
    assert found in " ".join(defects(board))


def test_the_uids_are_those_that_people_have_links_to() -> None:
    assert {dashboard(name)["title"]: dashboard(name)["uid"] for name in NAMES} == {
        "busyapi / Overview": "busyapi-overview",
        "busyapi / Data path": "busyapi-data-path",
        "busyapi / Autoscaling and resources": "busyapi-resources",
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_dashboard_leads_to_the_other_two(name: str) -> None:
    board = dashboard(name)
    others = {f"/d/{uid}" for uid in UIDS.values()} - {f"/d/{board['uid']}"}
    assert {each["url"] for each in board["links"]} == others
    assert all(each["includeVars"] and each["keepTime"] for each in board["links"])


def rules() -> list[Json]:
    groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def linked(boards: list[Json]) -> set[str]:
    """Return the alerts whose runbooks panels lead to."""
    links = [link["url"] for board in boards for each in panels(board) for link in each["links"]]
    return {re.fullmatch(r"\$\{runbooks\}(\w+)\.md", url)[1] for url in links}  # type: ignore[index]


def test_every_alert_has_a_panel_that_leads_to_its_runbook_and_no_panel_to_another() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert linked([dashboard(name) for name in NAMES]) == alerts


def test_every_recording_rule_that_a_panel_reads_is_one_of_the_chart() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = set(re.findall(r"busyapi:\w+:\w+", "".join(map(str, map(dashboard, NAMES)))))
    assert read
    assert read <= recorded


def refused(expressions: list[str], folder: Path) -> str:
    """Say what promtool has against queries: it reads them in rules, and in nothing else."""
    path = folder / "rules.yaml"
    rule = [{"record": f"query:{n}", "expr": each} for n, each in enumerate(expressions)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rule}]}))
    command = [str(PROMTOOL), "check", "rules", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.stderr if done.returncode else ""


def expressions(name: str) -> list[str]:
    choice = Choice("", 0, 60, 1, "1m", "usages", "busyapi")
    targets = [target for each in panels(dashboard(name)) for target in each["targets"]]
    return [choice.filled(each["expr"]) for each in targets]


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_one_that_prometheus_takes(name: str, tmp_path: Path) -> None:
    assert refused(expressions(name), tmp_path) == ""


def test_a_query_that_prometheus_refuses_is_found(tmp_path: Path) -> None:
    broken = [*expressions("overview"), "sum(rate(busyapi_requests_total)"]
    assert "could not parse expression" in refused(broken, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_unit_is_one_that_the_preview_can_write(name: str) -> None:
    for panel in panels(dashboard(name)):
        assert written(1.5, panel["fieldConfig"]["defaults"]["unit"])


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
def test_a_value_is_written_as_grafana_writes_it(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


@pytest.mark.parametrize("by_helm", [render, render3], ids=["helm 4", "helm 3"])
def test_a_config_map_for_each_dashboard_as_the_sidecar_takes_it(by_helm: Any) -> None:
    maps = [each for each in of_kind(by_helm(ON), "ConfigMap") if "-dashboard-" in str(each)]
    assert {each["metadata"]["name"] for each in maps} == {
        f"busyapi-dashboard-{name}" for name in NAMES
    }
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "busyapi"}
        ((name, text),) = each["data"].items()
        assert json.loads(text)["uid"] == name.removesuffix(".json")


def test_the_config_maps_can_be_where_the_sidecar_looks() -> None:
    values = copy.deepcopy(ON)
    values["metrics"]["dashboards"] |= {
        "namespace": "monitoring",
        "labels": {"grafana_dashboard": "yes"},
        "annotations": {"grafana_folder": "Devices"},
    }
    for each in of_kind(render(values), "ConfigMap"):
        if "-dashboard-" in each["metadata"]["name"]:
            assert each["metadata"]["namespace"] == "monitoring"
            assert each["metadata"]["labels"]["grafana_dashboard"] == "yes"
            assert each["metadata"]["annotations"] == {"grafana_folder": "Devices"}


def test_without_being_asked_for_there_is_none() -> None:
    assert not [each for each in of_kind(render(), "ConfigMap") if "-dashboard-" in str(each)]


@pytest.mark.parametrize("name", NAMES)
def test_every_dashboard_has_a_picture_that_is_small(name: str) -> None:
    picture = ROOT / "docs" / "reference" / "dashboards" / f"{name}.png"
    assert picture.stat().st_size < LARGEST_PICTURE
    assert f"dashboards/{name}.png" in (ROOT / "docs" / "reference" / "dashboards.md").read_text()


def test_the_chart_packs_them() -> None:
    ignored = (CHART / ".helmignore").read_text().splitlines()
    assert not [each for each in ignored if "dashboards" in each or "json" in each]
