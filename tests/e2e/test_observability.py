"""Prometheus' replies are understood, and each problem in them is reported."""

from typing import Any

import pytest

from e2e.release import CHART
from e2e.scenarios.observability import (
    AT_MAXIMUM,
    MISSING,
    THROTTLED,
    count_up,
    find_expressions,
    find_firing,
    find_problems,
    make_values,
    own_rules,
)
from tests.observability.test_coverage import ON_A_CLUSTER

RULES = (CHART / "files" / "rules.yaml").read_text()


def make_reply(
    health: str = "ok", state: str = "inactive", namespace: str = "one"
) -> dict[str, Any]:
    file = f"/etc/prometheus/rules/{namespace}-busyapi-5bd0.yaml"
    rule = {"name": MISSING, "health": health, "state": state}
    return {"groups": [{"file": file, "rules": [rule]}]}


def test_sound_rules_have_no_problem() -> None:
    assert find_problems(make_reply(), "one") == []


@pytest.mark.parametrize(
    "wrong", [make_reply("err"), make_reply("unknown"), make_reply(namespace="two"), {"groups": []}]
)
def test_a_failing_or_missing_rule_is_reported(wrong: dict[str, Any]) -> None:
    assert find_problems(wrong, "one")


def test_a_namespace_with_the_same_ending_is_another() -> None:
    assert own_rules(make_reply(namespace="another-one"), "one") == []


@pytest.mark.parametrize(("state", "fires"), [("firing", True), ("pending", False)])
def test_only_a_firing_alert_counts(state: str, fires: bool) -> None:  # noqa: FBT001
    assert (MISSING in find_firing(own_rules(make_reply(state=state), "one"))) == fires


@pytest.mark.parametrize(
    ("health", "labels", "count"),
    [
        ("up", {"namespace": "one", "release": "busyapi"}, 1),
        ("down", {"namespace": "one", "release": "busyapi"}, 0),
        ("up", {"namespace": "two", "release": "busyapi"}, 0),
        ("up", {"namespace": "one"}, 0),
    ],
)
def test_targets_that_are_up_are_counted(health: str, labels: dict[str, str], count: int) -> None:
    assert count_up({"activeTargets": [{"health": health, "labels": labels}]}, "one") == count


def test_rules_wait_less_and_are_otherwise_the_same() -> None:
    changed = make_values(RULES)["metrics"]["prometheusRule"]["overrides"]
    (before,) = find_expressions(RULES, THROTTLED)
    assert set(changed) == {MISSING, AT_MAXIMUM, THROTTLED}
    assert changed[THROTTLED]["expr"].replace("[45s]", "[5m]") == before
    assert "[5m]" not in changed[THROTTLED]["expr"]


def test_alerts_of_this_scenario_are_those_that_only_a_cluster_can_cause() -> None:
    # Only promtool plays the volume of Valkey: the test cluster scrapes no kubelet.
    assert {AT_MAXIMUM, THROTTLED, "BusyapiRedisDiskFilling"} == ON_A_CLUSTER
