"""What values change of the PrometheusRule."""

from typing import Any

import pytest

from testkit.chart.promtool import alerts, groups
from testkit.chart.rendering import CHART, Json, of_kind, one, render, values_of
from testkit.chart.schemas import problem

FULL = "BusyapiBufferFull"


def rule(name: str, **values: Any) -> Json:
    """The one rule of an alert, under these values."""
    (found,) = (each for each in alerts(groups(values)) if each["alert"] == name)
    return found


def test_there_is_none_by_default() -> None:
    assert not of_kind(render(), "PrometheusRule")


def test_labels_and_annotations_are_on_the_object() -> None:
    documents = render(values_of(CHART / "ci" / "everything-values.yaml"))
    metadata = one(documents, "PrometheusRule", "busyapi")["metadata"]
    assert metadata["labels"]["release"] == "prometheus"
    assert metadata["annotations"] == {"example.org/rules": "busyapi"}


def test_an_alert_is_left_out_alone() -> None:
    before = [each["alert"] for each in alerts(groups())]
    after = [each["alert"] for each in alerts(groups({"disabled": {FULL: True}}))]
    assert after == [each for each in before if each != FULL]
    assert [each["alert"] for each in alerts(groups({"disabled": {FULL: False}}))] == before


def test_recordings_stay_when_alerts_are_left_out() -> None:
    everything = {each["alert"]: True for each in alerts(groups())}
    left = groups({"disabled": everything})
    assert alerts(left) == []
    assert sum(len(each["rules"] or []) for each in left) == sum(
        "record" in each for group in groups() for each in group["rules"]
    )


def test_an_alert_is_changed_where_values_say_and_nowhere_else() -> None:
    before = rule(FULL)
    changed = rule(
        FULL, overrides={FULL: {"for": "5m", "labels": {"severity": "warning", "a": "b"}}}
    )
    labels = {"severity": "warning", "a": "b"}
    assert changed == before | {"for": "5m", "labels": labels}


@pytest.mark.parametrize("mark", ["__", ""], ids=["tokens", "as in 0.2.0"])
def test_tokens_in_an_expression_are_replaced(mark: str) -> None:
    namespace, release, name = (
        f"{mark}{each}{mark}" for each in ("NAMESPACE", "RELEASE", "FULLNAME")
    )
    chosen = f'namespace="{namespace}", release="{release}", pod=~"{name}-.*"'
    expr = f"busyapi_pending_usages{{{chosen}}} > 9"
    given = rule(FULL, overrides={FULL: {"expr": expr}})
    wanted = 'busyapi_pending_usages{namespace="usages", release="busyapi", pod=~"busyapi-.*"} > 9'
    assert given["expr"] == wanted


def test_labels_of_all_alerts_give_way_to_those_of_one() -> None:
    values = {
        "additionalRuleLabels": {"team": "devices", "severity": "page"},
        "overrides": {FULL: {"labels": {"team": "storage"}}},
    }
    found = {each["alert"]: each["labels"] for each in alerts(groups(values))}
    assert found[FULL] == {"team": "storage", "severity": "page"}
    assert found["BusyapiOverloaded"] == {"team": "devices", "severity": "page"}


def test_a_runbook_is_linked_where_values_say() -> None:
    found = rule(FULL, runbookUrl="https://runbooks.example.org/")
    url = found["annotations"]["runbook_url"]
    assert url == "https://runbooks.example.org/BusyapiBufferFull.md"


@pytest.mark.parametrize(
    ("way", "field"), [("serviceMonitor", "endpoints"), ("podMonitor", "podMetricsEndpoints")]
)
def test_monitors_give_every_series_its_release(way: str, field: str) -> None:
    own = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    documents = render({"metrics": {way: {"enabled": True, "relabelings": [own]}}})
    monitors = [each for each in documents if each["kind"] == way[0].upper() + way[1:]]
    assert len(monitors) == 2
    for each in monitors:
        (endpoint,) = each["spec"][field]
        first, second = endpoint["relabelings"]
        assert first["targetLabel"] == "release"
        assert first["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"]
        assert second == own


def test_a_rule_that_the_operator_would_refuse_is_found() -> None:
    (good,) = of_kind(render({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    assert problem(good, "1.34") == ""
    bad = {"alert": "A", "expr": "1", "form": "5m"}
    wrong = good | {"spec": {"groups": [{"name": "g", "rules": [bad]}]}}
    assert "form" in problem(wrong, "1.34")
