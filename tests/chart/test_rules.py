"""promtool accepts the rules, and each alert fires and is quiet in the cases of rules/."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.chart.promtool import (
    CASES,
    PLAIN_RULES,
    PROGRAMS,
    SOURCE,
    list_alerts,
    list_cases,
    list_groups,
    promtool,
    write_groups,
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
SERIES = re.compile(r"\b(?:up|ALERTS|probe_\w+|(?:busyapi|container|kube)[_:][\w:]*)\b(?!\")(.?)")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_promtool_accepts_the_rules_of_the_chart(
    tmp_path: Path, program: str, values: Json
) -> None:
    assert not promtool(program, "check", "rules", *write_groups(list_groups(values), tmp_path))


@pytest.mark.parametrize("program", PROGRAMS)
def test_promtool_accepts_the_plain_files_and_finds_an_error(tmp_path: Path, program: str) -> None:
    assert not promtool(program, "check", "rules", SOURCE, PLAIN_RULES)
    broken = tmp_path / "rules.yaml"
    broken.write_text(SOURCE.read_text().replace("clamp_min(", "clamp_mim(", 1))
    assert "clamp_mim" in promtool(program, "check", "rules", broken)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", CASES, ids=[case_file.stem for case_file in CASES])
def test_each_alert_fires_and_is_quiet(tmp_path: Path, program: str, case: Path) -> None:
    write_groups(list_groups(), tmp_path)
    copy = tmp_path / case.name
    copy.write_text(case.read_text())
    assert not promtool(program, "test", "rules", copy)


@pytest.mark.parametrize("case", ["archive", "buffer", "redis"])
def test_alerts_of_the_plain_file_fire_in_the_same_cases(tmp_path: Path, case: str) -> None:
    write_groups(yaml.safe_load(PLAIN_RULES.read_text())["groups"], tmp_path)
    (path,) = (case_file for case_file in CASES if case_file.stem == case)
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    assert not promtool("debian", "test", "rules", copy)


def test_missing_targets_of_the_plain_file_are_described_without_labels(tmp_path: Path) -> None:
    """absent() returns no namespace and no release there."""
    write_groups(yaml.safe_load(PLAIN_RULES.read_text())["groups"], tmp_path)
    annotations = {
        "summary": "Prometheus does not scrape busyapi pods",
        "description": "Prometheus has no sample of any api process.",
        "runbook_url": "docs/runbooks/BusyapiTargetsMissing.md",
    }
    expected_alert = {
        "exp_labels": {"severity": "critical", "role": "api"},
        "exp_annotations": annotations,
    }
    alert_test = {
        "eval_time": "10m",
        "alertname": "BusyapiTargetsMissing",
        "exp_alerts": [expected_alert],
    }
    flusher = {"series": 'busyapi_build_info{role="flusher"}', "values": "1x30"}
    test = {"interval": "1m", "input_series": [flusher], "alert_rule_test": [alert_test]}
    path = tmp_path / "absent.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["busyapi-pods.yaml"], "tests": [test]}))
    assert not promtool("debian", "test", "rules", path)


@pytest.mark.parametrize("case", ["archive", "buffer", "pods", "redis"])
def test_series_of_another_release_fire_no_alert(tmp_path: Path, case: str) -> None:
    (path,) = (case_file for case_file in CASES if case_file.stem == case)
    content = yaml.safe_load(path.read_text())
    copy = tmp_path / path.name
    for release in ("busyapi", "busyapi-2"):
        write_groups(list_groups(release=release), tmp_path)
        copy.write_text(yaml.safe_dump(without_expected_alerts(content)))
        assert bool(promtool("debian", "test", "rules", copy)) == (release == "busyapi")


def without_expected_alerts(content: Json) -> Json:
    """Return the same series without any expected alert."""
    for case in content["tests"]:
        for alert_test in case.get("alert_rule_test", ()):
            alert_test["exp_alerts"] = []
    return content


def test_every_series_is_selected_by_release() -> None:
    expressions = [rule["expr"] for group in list_groups() for rule in group["rules"]]
    assert find_unselected(expressions) == []
    assert find_unselected([*expressions, "sum(busyapi_usages_total) > 0"]) == [
        "busyapi_usages_total"
    ]
    assert find_unselected(['up{job="a"} == 0']) == ['{job="a"}']


def find_unselected(expressions: Sequence[str]) -> list[str]:
    """Return series without a selector, and selectors without the namespace of the release."""
    bare = [
        m[0].strip(m[1])
        for expression in expressions
        for m in SERIES.finditer(expression)
        if m[1] != "{"
    ]
    selectors = [
        selector for expression in expressions for selector in re.findall(r"\{.*?\}", expression)
    ]
    return bare + [selector for selector in selectors if 'namespace="usages"' not in selector]


def find_uncovered(rules: Sequence[Json], cases_given: Sequence[Json]) -> list[str]:
    """Return alerts and windows that lack a case that fires or a case that is quiet."""
    tests = [
        (case["name"], test) for case in cases_given for test in case.get("alert_rule_test", ())
    ]
    missing = []
    for rule in rules:
        name, labels = rule["alert"], rule["labels"].items()
        pair = (
            f"{rule['labels']['long']}/{rule['labels']['short']}" if "long" in dict(labels) else ""
        )
        own_tests = [(title, test) for title, test in tests if test["alertname"] == name]
        fires = any(
            labels <= alert["exp_labels"].items() for _, t in own_tests for alert in t["exp_alerts"]
        )
        quiet = any(
            f"{name}: {pair}" in title and "quiet" in title and not t["exp_alerts"]
            for title, t in own_tests
        )
        missing += [
            f"{name} {pair} {outcome}"
            for outcome, is_there in (("fires", fires), ("quiet", quiet))
            if not is_there
        ]
    return missing


def test_every_alert_and_window_has_a_case_that_fires_and_one_that_is_quiet() -> None:
    rules, cases_given = list_alerts(list_groups()), list_cases()
    assert find_uncovered(rules, cases_given) == []
    new: Json = {"alert": "BusyapiNew", "labels": {"severity": "warning"}}
    assert find_uncovered([new], cases_given) == ["BusyapiNew  fires", "BusyapiNew  quiet"]
    without = [case for case in cases_given if "LatencyBurn: 6h/30m fires" not in case["name"]]
    assert find_uncovered(rules, without) == ["BusyapiLatencyBurn 6h/30m fires"]
    without = [case for case in cases_given if "LatencyBurn: 6h/30m is quiet" not in case["name"]]
    assert find_uncovered(rules, without) == ["BusyapiLatencyBurn 6h/30m quiet"]


def test_burn_alerts_have_the_windows_and_factors_of_their_objectives() -> None:
    for slo, budget in BUDGETS.items():
        rules = [
            rule for rule in list_alerts(list_groups()) if rule["alert"] == f"Busyapi{slo}Burn"
        ]
        windows_of_rules = [(rule["labels"]["long"], rule["labels"]["short"]) for rule in rules]
        assert windows_of_rules == list(WINDOWS)
        for rule, (windows, (factor, severity)) in zip(rules, WINDOWS.items(), strict=True):
            assert rule["labels"]["severity"] == severity
            read = re.findall(r":ratio_rate(\w+)\{.*?\} > (.*)", rule["expr"])
            assert read == [(window, f"{factor} * {budget}") for window in windows]


def find_missing_parts(rule: Json) -> list[str]:
    """Return the annotations and labels that an alert lacks."""
    notes: dict[str, Any] = rule.get("annotations", {})
    checks = {
        "summary": bool(notes.get("summary")),
        "description with its figures": bool(
            re.search(r"\{\{ (\$value|\$labels|with \$labels)", notes.get("description", ""))
        ),
        "severity": rule["labels"].get("severity") in {"critical", "warning"},
        "runbook_url": notes.get("runbook_url") == f"docs/runbooks/{rule['alert']}.md",
    }
    return [part for part, is_there in checks.items() if not is_there]


def test_every_alert_has_summary_description_severity_and_runbook() -> None:
    assert {
        rule["alert"]: find_missing_parts(rule)
        for rule in list_alerts(list_groups())
        if find_missing_parts(rule)
    } == {}
    bare = {"alert": "A", "labels": {}, "annotations": {"description": "It is bad."}}
    assert len(find_missing_parts(bare)) == 4


def test_every_alert_has_a_runbook_and_vice_versa() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in list_alerts(list_groups())}
