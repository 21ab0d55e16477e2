"""What is read out of Prometheus' answers, and that each thing that is wrong is told."""

from typing import Any

import pytest

from e2e.release import CHART
from e2e.scenarios.observability import (
    MISSING,
    MOST,
    THROTTLED,
    expressions,
    firing,
    ours,
    troubles,
    up,
    values,
)
from tests.observability.test_coverage import ON_A_CLUSTER

RULES = (CHART / "files" / "rules.yaml").read_text()


def told(health: str = "ok", state: str = "inactive", namespace: str = "one") -> dict[str, Any]:
    file = f"/etc/prometheus/rules/{namespace}-busyapi-5bd0.yaml"
    rule = {"name": MISSING, "health": health, "state": state}
    return {"groups": [{"file": file, "rules": [rule]}]}


def test_all_is_well() -> None:
    assert troubles(told(), "one") == []


@pytest.mark.parametrize(
    "wrong", [told("err"), told("unknown"), told(namespace="two"), {"groups": []}]
)
def test_a_rule_that_fails_or_is_not_there(wrong: dict[str, Any]) -> None:
    assert troubles(wrong, "one")


def test_a_namespace_that_ends_alike_is_another() -> None:
    assert ours(told(namespace="another-one"), "one") == []


@pytest.mark.parametrize(("state", "fires"), [("firing", True), ("pending", False)])
def test_only_what_fires(state: str, fires: bool) -> None:  # noqa: FBT001
    assert (MISSING in firing(ours(told(state=state), "one"))) == fires


@pytest.mark.parametrize(
    ("health", "labels", "count"),
    [
        ("up", {"namespace": "one", "release": "busyapi"}, 1),
        ("down", {"namespace": "one", "release": "busyapi"}, 0),
        ("up", {"namespace": "two", "release": "busyapi"}, 0),
        ("up", {"namespace": "one"}, 0),
    ],
)
def test_targets_that_are_up(health: str, labels: dict[str, str], count: int) -> None:
    assert up({"activeTargets": [{"health": health, "labels": labels}]}, "one") == count


def test_rules_are_sped_up_and_nothing_else() -> None:
    changed = values(RULES)["metrics"]["prometheusRule"]["overrides"]
    (before,) = expressions(RULES, THROTTLED)
    assert set(changed) == {MISSING, MOST, THROTTLED}
    assert changed[THROTTLED]["expr"].replace("[45s]", "[5m]") == before
    assert "[5m]" not in changed[THROTTLED]["expr"]


def test_what_no_other_test_makes_fire() -> None:
    assert {MOST, THROTTLED} == ON_A_CLUSTER
