"""Every object of every mode, strictly, by the schemas of every Kubernetes that is supported."""

from pathlib import Path

import pytest

from testkit.chart.rendering import CHART, MODES, Json, key, loaded, mode_name, render, values_of
from testkit.chart.schemas import CARRIED, CRDS, VERSIONS, is_foreign, name, problem

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
def test_every_object_is_what_that_kubernetes_takes(mode: Path, version: str) -> None:
    values = values_of(mode)
    if version == "1.29" and "trafficDistribution" in (values.get("service") or {}):
        # The one option that came later; values.yaml says so.
        del values["service"]["trafficDistribution"]
    wrong = {key(each): problem(each, version) for each in render(values)}
    assert not any(wrong.values()), {name: each for name, each in wrong.items() if each}


def test_the_versions_are_those_that_the_chart_promises() -> None:
    assert loaded(CHART).metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert set(VERSIONS) <= set(CARRIED)
    assert CARRIED[-1] == VERSIONS[-1]


def test_every_foreign_kind_is_made_by_some_mode() -> None:
    made = {name(each) for mode in MODES for each in render(values_of(mode)) if is_foreign(each)}
    assert made == CRDS.keys() - {"definitions"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (with_container(livenesProbe={}), "livenesProbe"),
        (with_container(ports=[{"containerPort": "3000"}]), "3000"),
        (with_container(command=None), "command: null"),
        (DEPLOYMENT | {"apiVersion": "apps/v1beta1"}, "apps/v1beta1"),
        (DEPLOYMENT | {"kind": "Deploymint"}, "Deploymint"),
    ],
)
def test_a_wrong_object_is_found(document: Json, says: str) -> None:
    assert problem(DEPLOYMENT, "1.34") == ""
    assert says in problem(document, "1.34")


def test_a_field_is_found_where_it_is_too_new() -> None:
    sleep = with_container(lifecycle={"preStop": {"sleep": {"seconds": 1}}})
    assert "sleep" in problem(sleep, "1.28")
    assert problem(sleep, "1.30") == ""


def test_a_wrong_foreign_object_is_found() -> None:
    found = [
        problem(each | {"spec": each["spec"] | {"selektor": {}}}, "1.34")
        for mode in MODES
        for each in render(values_of(mode))
        if is_foreign(each)
    ]
    assert found
    assert all("selektor" in each for each in found)


def test_a_number_among_a_triggers_texts_is_found() -> None:
    trigger = {"type": "prometheus", "metadata": {"threshold": 5}}
    document = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "k", "namespace": "n", "labels": {}},
        "spec": {"scaleTargetRef": {"name": "k"}, "triggers": [trigger]},
    }
    assert "5 is not of type 'string'" in problem(document, "1.34")
