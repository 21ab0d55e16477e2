"""The rules are right: promtool reads them, and each alert fires and is quiet as rules/ says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.chart.promtool import (
    CASES,
    PLAIN,
    PROGRAMS,
    SOURCE,
    alerts,
    cases,
    groups,
    promtool,
    written,
)
from testkit.chart.rendering import CHART, ROOT, Json, values_of

RUNBOOKS = ROOT / "docs" / "runbooks"
EVERYTHING = values_of(CHART / "ci" / "everything-values.yaml")["metrics"]["prometheusRule"]
WINDOWS = {
    ("1h", "5m"): ("14.4", "critical"),
    ("6h", "30m"): ("6", "critical"),
    ("1d", "2h"): ("3", "warning"),
    ("3d", "6h"): ("1", "warning"),
}
BUDGETS = {"Availability": "0.001", "Latency": "0.01", "Archiving": "0.001"}
SERIES = re.compile(r"\b(?:up|(?:busyapi|container|kube)[_:][\w:]*)\b(?!\")(.?)")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_promtool_reads_the_rules_of_the_chart(tmp_path: Path, program: str, values: Json) -> None:
    assert not promtool(program, "check", "rules", *written(groups(values), tmp_path))


@pytest.mark.parametrize("program", PROGRAMS)
def test_promtool_reads_the_plain_files(tmp_path: Path, program: str) -> None:
    assert not promtool(program, "check", "rules", SOURCE, PLAIN)
    broken = tmp_path / "rules.yaml"
    broken.write_text(SOURCE.read_text().replace("clamp_min(", "clamp_mim(", 1))
    assert "clamp_mim" in promtool(program, "check", "rules", broken)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", CASES, ids=[each.stem for each in CASES])
def test_each_alert_fires_and_is_quiet(tmp_path: Path, program: str, case: Path) -> None:
    written(groups(), tmp_path)
    copy = tmp_path / case.name
    copy.write_text(case.read_text())
    assert not promtool(program, "test", "rules", copy)


@pytest.mark.parametrize("case", ["archive", "buffer", "redis"])
def test_the_plain_file_fires_likewise(tmp_path: Path, case: str) -> None:
    written(yaml.safe_load(PLAIN.read_text())["groups"], tmp_path)
    (path,) = (each for each in CASES if each.stem == case)
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    assert not promtool("debian", "test", "rules", copy)


def test_the_plain_file_says_who_is_missing_without_a_hole(tmp_path: Path) -> None:
    """Its absent() gives no namespace and no release."""
    written(yaml.safe_load(PLAIN.read_text())["groups"], tmp_path)
    annotations = {
        "summary": "Prometheus does not scrape busyapi pods",
        "description": "Prometheus has no sample of any api process.",
        "runbook_url": "docs/runbooks/BusyapiTargetsMissing.md",
    }
    heard = {"exp_labels": {"severity": "critical", "role": "api"}, "exp_annotations": annotations}
    asked = {"eval_time": "10m", "alertname": "BusyapiTargetsMissing", "exp_alerts": [heard]}
    flusher = {"series": 'busyapi_build_info{role="flusher"}', "values": "1x30"}
    test = {"interval": "1m", "input_series": [flusher], "alert_rule_test": [asked]}
    path = tmp_path / "absent.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["busyapi-pods.yaml"], "tests": [test]}))
    assert not promtool("debian", "test", "rules", path)


@pytest.mark.parametrize("case", ["archive", "buffer", "pods", "redis"])
def test_another_release_in_the_same_namespace_hears_nothing(tmp_path: Path, case: str) -> None:
    (path,) = (each for each in CASES if each.stem == case)
    content = yaml.safe_load(path.read_text())
    copy = tmp_path / path.name
    for release in ("busyapi", "busyapi-2"):
        written(groups(release=release), tmp_path)
        copy.write_text(yaml.safe_dump(silent(content)))
        assert bool(promtool("debian", "test", "rules", copy)) == (release == "busyapi")


def silent(content: Json) -> Json:
    """The same series, and nobody expected to hear of them."""
    for each in content["tests"]:
        for asked in each["alert_rule_test"]:
            asked["exp_alerts"] = []
    return content


def test_every_series_is_chosen_by_its_release() -> None:
    expressions = [rule["expr"] for group in groups() for rule in group["rules"]]
    assert unchosen(expressions) == []
    assert unchosen([*expressions, "sum(busyapi_usages_total) > 0"]) == ["busyapi_usages_total"]
    assert unchosen(['up{job="a"} == 0']) == ['{job="a"}']


def unchosen(expressions: Sequence[str]) -> list[str]:
    """Series without a selector, and selectors without our namespace."""
    bare = [m[0].strip(m[1]) for e in expressions for m in SERIES.finditer(e) if m[1] != "{"]
    selectors = [each for e in expressions for each in re.findall(r"\{.*?\}", e)]
    return bare + [each for each in selectors if 'namespace="usages"' not in each]


def uncovered(of: Sequence[Json], given: Sequence[Json]) -> list[str]:
    """Alerts, and window pairs of alerts, without a case in which they fire or one without."""
    asked = [(each["name"], test) for each in given for test in each["alert_rule_test"]]
    missing = []
    for rule in of:
        name, labels = rule["alert"], rule["labels"].items()
        pair = (
            f"{rule['labels']['long']}/{rule['labels']['short']}" if "long" in dict(labels) else ""
        )
        mine = [(title, test) for title, test in asked if test["alertname"] == name]
        fires = any(
            labels <= each["exp_labels"].items() for _, t in mine for each in t["exp_alerts"]
        )
        quiet = any(
            f"{name}: {pair}" in title and "quiet" in title and not t["exp_alerts"]
            for title, t in mine
        )
        missing += [
            f"{name} {pair} {what}"
            for what, is_there in (("fires", fires), ("quiet", quiet))
            if not is_there
        ]
    return missing


def test_every_alert_and_window_has_a_case_in_which_it_fires_and_one_in_which_not() -> None:
    ours, given = alerts(groups()), cases()
    assert uncovered(ours, given) == []
    new: Json = {"alert": "BusyapiNew", "labels": {"severity": "warning"}}
    assert uncovered([new], given) == ["BusyapiNew  fires", "BusyapiNew  quiet"]
    without = [each for each in given if "LatencyBurn: 6h/30m fires" not in each["name"]]
    assert uncovered(ours, without) == ["BusyapiLatencyBurn 6h/30m fires"]
    without = [each for each in given if "LatencyBurn: 6h/30m is quiet" not in each["name"]]
    assert uncovered(ours, without) == ["BusyapiLatencyBurn 6h/30m quiet"]


def test_burn_alerts_have_the_windows_and_factors_of_their_objectives() -> None:
    for slo, budget in BUDGETS.items():
        found = [each for each in alerts(groups()) if each["alert"] == f"Busyapi{slo}Burn"]
        got = [(each["labels"]["long"], each["labels"]["short"]) for each in found]
        assert got == list(WINDOWS)
        for each, (windows, (factor, severity)) in zip(found, WINDOWS.items(), strict=True):
            assert each["labels"]["severity"] == severity
            read = re.findall(r":ratio_rate(\w+)\{.*?\} > (.*)", each["expr"])
            assert read == [(window, f"{factor} * {budget}") for window in windows]


def incomplete(rule: Json) -> list[str]:
    """What an alert lacks for who is woken by it."""
    notes: dict[str, Any] = rule.get("annotations", {})
    there = {
        "summary": bool(notes.get("summary")),
        "description with its figures": bool(
            re.search(r"\{\{ (\$value|\$labels|with \$labels)", notes.get("description", ""))
        ),
        "severity": rule["labels"].get("severity") in {"critical", "warning"},
        "runbook_url": notes.get("runbook_url") == f"docs/runbooks/{rule['alert']}.md",
    }
    return [what for what, is_there in there.items() if not is_there]


def test_every_alert_tells_what_is_wrong_and_where_to_read_on() -> None:
    assert {each["alert"]: incomplete(each) for each in alerts(groups()) if incomplete(each)} == {}
    bare = {"alert": "A", "labels": {}, "annotations": {"description": "It is bad."}}
    assert len(incomplete(bare)) == 4


def test_every_alert_has_a_runbook_and_the_other_way_round() -> None:
    pages = {each.stem for each in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {each["alert"] for each in alerts(groups())}
