"""With existing Secrets two renders are equal, and the Argo CD example has nothing that differs."""

from pathlib import Path

import helm_python
import pytest
import yaml

from testkit.chart.rendering import (
    CHART,
    MODES,
    NAMESPACE,
    ROOT,
    Json,
    find_object,
    mode_name,
    of_kind,
    parse,
    render,
    values_of,
)

APPLICATION: Json = yaml.safe_load((ROOT / "k8s" / "argocd" / "application.yaml").read_text())
HELM: Json = APPLICATION["spec"]["source"]["helm"]


def fresh(values: Json) -> dict[str, str]:
    """Render without the cache of `texts`."""
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(values, name="busyapi", namespace=NAMESPACE)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_two_renders_are_equal_with_an_existing_secret(mode: Path) -> None:
    values = values_of(mode)
    values["tests"] = (values.get("tests") or {}) | {"existingSecret": "s"}
    for part in ("valkey", "flusher"):
        values[part] = (values.get(part) or {}) | {"auth": {"existingSecret": "s"}}
    if salt := values.get("auth", {}).get("writerSalt"):
        salt["existingSecret"] = "s"
    tls = values["valkey"].get("tls") or {}
    if not (tls.get("issuerRef") or {}).get("name"):
        tls["existingSecret"] = "s" if tls.get("enabled") else ""
    assert fresh(values) == fresh(values)


def test_two_renders_differ_only_in_passwords_without_one() -> None:
    values: Json = {
        "auth": {"writerSalt": {"enabled": True}},
        "valkey": {"tls": {"enabled": True}},
    }
    first, second = fresh(values), fresh(values)
    assert {name for name in first if first[name] != second[name]} == {
        "busyapi/templates/api/writer-salt-secret.yaml",
        "busyapi/templates/flusher/secret.yaml",
        "busyapi/templates/tests/secret.yaml",
        "busyapi/templates/valkey/secret.yaml",
        "busyapi/templates/valkey/tls-secret.yaml",
    }


def test_application_renders_the_same_each_time_and_no_secret() -> None:
    first, second = fresh(HELM["valuesObject"]), fresh(HELM["valuesObject"])
    assert first == second
    documents = [
        entry for name, text in first.items() if name.endswith(".yaml") for entry in parse(text)
    ]
    assert of_kind(documents, "Secret") == []


def test_application_is_of_this_chart_and_has_the_names_of_its_secrets() -> None:
    assert (ROOT / APPLICATION["spec"]["source"]["path"]).samefile(CHART)
    documents = render(HELM["valuesObject"], release=HELM["releaseName"])
    workload = find_object(documents, "StatefulSet", "busyapi-valkey")
    (watched,) = workload["metadata"]["annotations"].values()
    assert watched == "busyapi-valkey"
    assert watched in str(workload["spec"]["template"]["spec"]["volumes"])
    api = find_object(documents, "Deployment", "busyapi")
    assert "busyapi-tokens" in str(api["spec"]["template"]["spec"]["volumes"])
