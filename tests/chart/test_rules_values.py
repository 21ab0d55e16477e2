"""Tests of the values that change the PrometheusRule."""

from typing import Any

import pytest

from testkit.chart.promtool import list_alerts, list_groups
from testkit.chart.rendering import CHART, OPEN, ROOT, Json, find_object, of_kind, render, values_of
from testkit.chart.schemas import find_schema_error

FULL = "BusyapiBufferFull"
PROBE_FAILING = "BusyapiProbeFailing"


def rule(name: str, **values: Any) -> Json:
    """Return the only rule of an alert with these values."""
    (match,) = (alert for alert in list_alerts(list_groups(values)) if alert["alert"] == name)
    return match


def test_no_rule_is_created_by_default() -> None:
    assert not of_kind(render(), "PrometheusRule")


def test_labels_and_annotations_are_on_the_object() -> None:
    documents = render(values_of(CHART / "ci" / "everything-values.yaml"))
    metadata = find_object(documents, "PrometheusRule", "busyapi")["metadata"]
    assert metadata["labels"]["release"] == "prometheus"
    assert metadata["annotations"] == {"example.org/rules": "busyapi"}


def test_disabled_alert_is_left_out_alone() -> None:
    before = [alert["alert"] for alert in list_alerts(list_groups())]
    after = [alert["alert"] for alert in list_alerts(list_groups({"disabled": {FULL: True}}))]
    assert after == [name for name in before if name != FULL]
    assert [
        alert["alert"] for alert in list_alerts(list_groups({"disabled": {FULL: False}}))
    ] == before


def test_recording_rules_are_kept_when_all_alerts_are_disabled() -> None:
    everything = {alert["alert"]: True for alert in list_alerts(list_groups())}
    left = list_groups({"disabled": everything})
    assert list_alerts(left) == []
    assert sum(len(group["rules"] or []) for group in left) == sum(
        "record" in entry for group in list_groups() for entry in group["rules"]
    )


def test_override_changes_only_what_it_names() -> None:
    before = rule(FULL)
    changed = rule(
        FULL, overrides={FULL: {"for": "5m", "labels": {"severity": "warning", "a": "b"}}}
    )
    labels = {"severity": "warning", "a": "b"}
    assert changed == before | {"for": "5m", "labels": labels}


@pytest.mark.parametrize("mark", ["__", ""], ids=["tokens", "as in 0.2.0"])
def test_tokens_in_an_expression_are_replaced(mark: str) -> None:
    namespace, release, name = (
        f"{mark}{token}{mark}" for token in ("NAMESPACE", "RELEASE", "FULLNAME")
    )
    selector = f'namespace="{namespace}", release="{release}", pod=~"{name}-.*"'
    expr = f"busyapi_pending_usages{{{selector}}} > 9"
    alert = rule(FULL, overrides={FULL: {"expr": expr}})
    expected = (
        'busyapi_pending_usages{namespace="usages", release="busyapi", pod=~"busyapi-.*"} > 9'
    )
    assert alert["expr"] == expected


def test_labels_of_an_override_win_over_labels_of_all_alerts() -> None:
    values = {
        "additionalRuleLabels": {"team": "devices", "severity": "page"},
        "overrides": {FULL: {"labels": {"team": "storage"}}},
    }
    labels_by_alert = {
        alert["alert"]: alert["labels"] for alert in list_alerts(list_groups(values))
    }
    assert labels_by_alert[FULL] == {"team": "storage", "severity": "page"}
    assert labels_by_alert["BusyapiOverloaded"] == {"team": "devices", "severity": "page"}


def test_runbook_url_is_used_in_alerts() -> None:
    alert = rule(FULL, runbookUrl="https://runbooks.example.org/")
    url = alert["annotations"]["runbook_url"]
    assert url == "https://runbooks.example.org/BusyapiBufferFull.md"


@pytest.mark.parametrize(
    ("kind", "field"), [("serviceMonitor", "endpoints"), ("podMonitor", "podMetricsEndpoints")]
)
def test_monitors_add_the_release_to_every_series(kind: str, field: str) -> None:
    relabeling = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    documents = render({"metrics": {kind: {"enabled": True, "relabelings": [relabeling]}}})
    monitors = [
        document for document in documents if document["kind"] == kind[0].upper() + kind[1:]
    ]
    assert len(monitors) == 2
    for monitor in monitors:
        (endpoint,) = monitor["spec"][field]
        first, second = endpoint["relabelings"]
        assert first["targetLabel"] == "release"
        assert first["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"]
        assert second == relabeling


def test_rule_that_the_operator_refuses_is_found() -> None:
    (good,) = of_kind(render({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    assert find_schema_error(good, "1.34") == ""
    bad = {"alert": "A", "expr": "1", "form": "5m"}
    wrong = good | {"spec": {"groups": [{"name": "g", "rules": [bad]}]}}
    assert "form" in find_schema_error(wrong, "1.34")


def test_alert_on_traffic_is_off_by_default_and_with_values_of_an_older_release() -> None:
    name = "BusyapiTrafficGone"
    for rule_values in ({"enabled": True}, {"enabled": True, "trafficGone": None}):
        (document,) = of_kind(
            render({"metrics": {"prometheusRule": rule_values}}), "PrometheusRule"
        )
        assert name not in str(document)
    assert name in {alert["alert"] for alert in list_alerts(list_groups())}
    optional = (ROOT / "k8s" / "observability" / "rules-traffic.yaml").read_text()
    assert name in optional
    assert name not in (ROOT / "k8s" / "observability" / "rules.yaml").read_text()


def test_missing_probe_has_an_alert_only_with_the_probe_of_the_chart() -> None:
    probe = {"enabled": True, "targets": ["https://usages.example.org/"]}
    for metrics, rules in (({"probe": probe}, 2), ({}, 1), ({"probe": None}, 1)):
        documents = render({"metrics": {"prometheusRule": {"enabled": True}, **metrics}})
        (document,) = of_kind(documents, "PrometheusRule")
        named = [a for a in list_alerts(document["spec"]["groups"]) if a["alert"] == PROBE_FAILING]
        assert len(named) == rules
        assert ("absent(probe_success" in str(named)) == (rules == 2)
    for name in ("rules.yaml", "rules-traffic.yaml"):
        plain = (ROOT / "k8s" / "observability" / name).read_text()
        assert "absent(probe_success" not in plain


INGRESS: Json = {"enabled": True, "hosts": [{"host": "{{ .Release.Name }}.example.org"}]}
TLS: Json = {"tls": [{"secretName": "t", "hosts": ["busyapi.example.org"]}]}
ROUTE: Json = {
    "enabled": True,
    "parentRefs": [{"name": "g"}],
    "hostnames": ["*.example.org", "u.example.org"],
}


def targets(**values: Any) -> Any:
    """Return the URLs of the Probe with these values."""
    (probe,) = of_kind(render(OPEN | values), "Probe")
    assert find_schema_error(probe, "1.34") == ""
    static = probe["spec"]["targets"]["staticConfig"]
    assert static["labels"] == {"namespace": "usages", "release": "busyapi"}
    return static["static"]


def test_probe_requests_each_host_that_is_one_name() -> None:
    probe: Json = {"probe": {"enabled": True}}
    assert not of_kind(render(OPEN | {"ingress": INGRESS}), "Probe")
    assert targets(ingress=INGRESS | TLS, httpRoute=ROUTE, metrics=probe) == [
        "https://busyapi.example.org/openapi.json",
        "http://u.example.org/openapi.json",
    ]
    own = {"probe": {"enabled": True, "targets": ["https://{{ .Release.Name }}/"]}}
    assert targets(metrics=own) == ["https://busyapi/"]


def outside_url(**values: Any) -> str | None:
    """Return the URL of the test pod that posts from outside, if there is one."""
    documents = of_kind(render(OPEN | values), "Pod")
    pods = {document["metadata"]["name"]: document for document in documents}
    if not (pod := pods.get("busyapi-test-outside")):
        return None
    (container,) = pod["spec"]["containers"]
    return str({entry["name"]: entry.get("value") for entry in container["env"]}["API_URL"])


def test_pod_posts_from_outside_only_if_there_is_a_way_in() -> None:
    assert outside_url() is None
    assert outside_url(ingress={"enabled": True, "hosts": [{"host": ""}]}) is None
    assert outside_url(ingress=INGRESS | TLS) == "https://busyapi.example.org"
    assert outside_url(httpRoute=ROUTE) == "http://u.example.org"
    assert (
        outside_url(tests={"outside": {"url": "https://a.example.org"}}) == "https://a.example.org"
    )
    for switch in ({"enabled": False}, {"outside": {"enabled": False}}):
        assert outside_url(ingress=INGRESS, tests=switch) is None
