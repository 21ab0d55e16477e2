"""Every object of every mode matches the strict schema of each supported Kubernetes version."""

from pathlib import Path

import pytest

from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    load_chart,
    mode_name,
    object_key_of,
    render,
    values_of,
)
from testkit.chart.schemas import (
    BUNDLED_VERSIONS,
    CRDS,
    VERSIONS,
    find_schema_error,
    is_foreign,
    name,
)

POD = {"name": "c", "image": "i"}
DEPLOYMENT: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [POD]}},
    },
}


def with_container(**fields: object) -> Json:
    spec = DEPLOYMENT["spec"] | {"template": {"spec": {"containers": [POD | fields]}}}
    return DEPLOYMENT | {"spec": spec}


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_each_kubernetes_version(mode: Path, version: str) -> None:
    values = values_of(mode)
    if version == "1.29" and "trafficDistribution" in (values.get("service") or {}):
        # The only option that 1.29 does not have, as values.yaml says.
        del values["service"]["trafficDistribution"]
    problems = {
        object_key_of(document): find_schema_error(document, version) for document in render(values)
    }
    assert not any(problems.values()), {name: text for name, text in problems.items() if text}


def test_tested_versions_are_those_that_the_chart_supports() -> None:
    assert load_chart(CHART).metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert set(VERSIONS) <= set(BUNDLED_VERSIONS)
    assert BUNDLED_VERSIONS[-1] == VERSIONS[-1]


def test_every_kind_of_a_crd_is_rendered_in_some_mode() -> None:
    names = {
        name(document)
        for mode in MODES
        for document in render(values_of(mode))
        if is_foreign(document)
    }
    assert names == CRDS.keys() - {"definitions"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (with_container(livenesProbe={}), "livenesProbe"),
        (with_container(ports=[{"containerPort": "3000"}]), "3000"),
        (with_container(command=None), "command: null"),
        (DEPLOYMENT | {"apiVersion": "apps/v1beta1"}, "apps/v1beta1"),
        (DEPLOYMENT | {"kind": "Deploymint"}, "Deploymint"),
    ],
)
def test_wrong_object_is_found(document: Json, message: str) -> None:
    assert find_schema_error(DEPLOYMENT, "1.34") == ""
    assert message in find_schema_error(document, "1.34")


def test_field_that_is_too_new_is_found() -> None:
    sleep = with_container(lifecycle={"preStop": {"sleep": {"seconds": 1}}})
    assert "sleep" in find_schema_error(sleep, "1.28")
    assert find_schema_error(sleep, "1.30") == ""


def test_wrong_object_of_a_crd_is_found() -> None:
    problems = [
        find_schema_error(document | {"spec": document["spec"] | {"selektor": {}}}, "1.34")
        for mode in MODES
        for document in render(values_of(mode))
        if is_foreign(document)
    ]
    assert problems
    assert all("selektor" in text for text in problems)


def test_number_instead_of_text_in_a_trigger_is_found() -> None:
    trigger = {"type": "prometheus", "metadata": {"threshold": 5}}
    document = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "k", "namespace": "n", "labels": {}},
        "spec": {"scaleTargetRef": {"name": "k"}, "triggers": [trigger]},
    }
    assert "5 is not of type 'string'" in find_schema_error(document, "1.34")
