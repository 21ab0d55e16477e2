"""An install is refused if the StorageClass of a volume does not say what it must."""

from pathlib import Path

import pytest

from testkit.chart.refused_values import (
    PLAIN_CLASS,
    find_refusals,
    find_storage_refusals,
    make_storage_chart,
)
from testkit.chart.rendering import CHART, Json, find_object, parse, render, values_of
from testkit.chart.rendering import ROOT as REPOSITORY

SAFE_CLASS = (
    '(dict "metadata" (dict "name" "safe" "annotations" (dict "example.org/disks" "luks"))'
    ' "parameters" (dict "encrypted" "true" "type" "gp3"))'
)
DEFAULT_CLASS = (
    '(dict "metadata" (dict "name" "usual" "annotations"'
    ' (dict "storageclass.kubernetes.io/is-default-class" "true")))'
)
ANNOTATION: Json = {"annotations": {"example.org/disks": "luks"}}
PARAMETER: Json = {"parameters": {"encrypted": "true"}}


def use(check: Json, name: str | None, **more: Json) -> Json:
    """Return values with a check, and this class for all volumes."""
    persistence = {"persistence": {"storageClass": name}}
    return {"storageClassCheck": check, "flusher": persistence, "valkey": persistence, **more}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return make_storage_chart(tmp_path, SAFE_CLASS, PLAIN_CLASS, DEFAULT_CLASS)


@pytest.mark.parametrize("check", [ANNOTATION, PARAMETER, ANNOTATION | PARAMETER])
def test_class_with_what_is_asked_is_accepted(chart: Path, check: Json) -> None:
    assert render(use(check, "safe"), chart=chart)
    assert render(use(check, None, **{"global": {"storageClass": "safe"}}), chart=chart)


@pytest.mark.parametrize(
    ("check", "lacking"),
    [
        (ANNOTATION, "example.org/disks: luks in its annotations"),
        (PARAMETER, "encrypted: true in its parameters"),
    ],
)
@pytest.mark.parametrize(("name", "used"), [("plain", "plain"), (None, "usual")])
def test_class_without_it_is_refused_for_each_volume(
    chart: Path, check: Json, lacking: str, name: str | None, used: str
) -> None:
    messages = find_refusals(use(check, name), chart)
    for part, message in zip(("flusher", "valkey"), messages, strict=True):
        assert message.startswith(
            f"the StorageClass {used} of {part}.persistence does not have {lacking}"
        )


def test_another_value_is_refused(chart: Path) -> None:
    check = {"parameters": {"encrypted": "false"}}
    assert len(find_refusals(use(check, "safe"), chart)) == 2


@pytest.mark.parametrize("name", ["missing", "-"])
def test_class_that_the_cluster_does_not_have_is_refused(chart: Path, name: str) -> None:
    messages = find_refusals(use(PARAMETER, name), chart)
    assert [f"the StorageClass {name}, which" in message for message in messages] == [True] * 2


def test_cluster_without_a_default_class_is_refused(tmp_path: Path) -> None:
    messages = find_refusals(use(PARAMETER, None), make_storage_chart(tmp_path, SAFE_CLASS))
    assert ["the default StorageClass, which" in message for message in messages] == [True] * 2


def test_only_volumes_that_the_chart_makes_are_checked(chart: Path) -> None:
    external = {"valkey": {"enabled": False}, "externalRedis": {"host": "r.example.org"}}
    (message,) = find_refusals(use(PARAMETER, "plain") | external, chart)
    assert "flusher.persistence" in message
    memory: Json = {
        "config": {"durability": "memory"},
        "flusher": {"persistence": {"enabled": False}},
    }
    assert render(use(PARAMETER, "plain") | external | memory, chart=chart)


def test_nothing_is_checked_by_default_or_without_a_cluster(chart: Path) -> None:
    assert render(use({}, "plain"), chart=chart)
    assert render(use(PARAMETER, "plain"))
    # Nothing in the release may call the API server: the check runs where helm runs.
    documents = render(use(PARAMETER, "plain"))
    assert not {document["kind"] for document in documents} & {"Role", "ClusterRole"}


def test_values_for_production_check_what_the_class_of_the_repository_says(tmp_path: Path) -> None:
    values = values_of(CHART / "values-production.yaml")
    example = REPOSITORY / "k8s" / "data-protection" / "storage-class.yaml"
    (entry,) = parse(example.read_text())
    assert values["storageClassCheck"]["parameters"].items() <= entry["parameters"].items()
    name = entry["metadata"]["name"]
    encrypted = f'(dict "metadata" (dict "name" "{name}") "parameters" (dict "encrypted" "true"))'
    documents = render(values, chart=make_storage_chart(tmp_path / "encrypted", encrypted))
    assert find_object(documents, "StatefulSet", "busyapi-flusher")
    plain = PLAIN_CLASS.replace("plain", name)
    assert len(find_refusals(values, make_storage_chart(tmp_path / "plain", plain))) == 2


def test_messages_name_what_to_set(tmp_path: Path) -> None:
    for message in find_storage_refusals(tmp_path):
        assert "persistence.storageClass to" in message
