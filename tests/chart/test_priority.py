"""Valkey and flushers have a priority above that of API pods, if the values say so."""

import pytest

from testkit.chart.rendering import Json, of_kind, pods, render

DATA = {"StatefulSet/busyapi-valkey", "StatefulSet/busyapi-flusher"}
API = "Deployment/busyapi"


def find_classes(values: Json) -> dict[str, str | None]:
    """Return the priority class of each workload."""
    classes = {name: pod["spec"].get("priorityClassName") for name, pod in pods(render(values))}
    return {name: value for name, value in classes.items() if name in {API, *DATA}}


def test_no_class_is_created_or_named_by_default() -> None:
    assert not of_kind(render(), "PriorityClass")
    assert set(find_classes({}).values()) == {None}


def test_two_classes_are_created_and_the_data_path_is_above_the_api() -> None:
    values = {"priorityClass": {"create": True}}
    data, api = of_kind(render(values), "PriorityClass")
    assert data["value"] > api["value"] > 0
    # The default: Valkey evicts an API pod where there is no room. A new API pod evicts nothing.
    assert "preemptionPolicy" not in data
    assert api["preemptionPolicy"] == "Never"
    # Two releases of the same name in different namespaces do not share a class.
    assert data["metadata"]["name"] == "usages-busyapi-data"
    assert find_classes(values) == {
        **dict.fromkeys(DATA, "usages-busyapi-data"),
        API: "usages-busyapi-api",
    }


def test_created_classes_can_be_named() -> None:
    names: Json = {"data": {"name": "storage"}, "api": {"name": "web", "value": 5}}
    values = {"priorityClass": {"create": True, **names}}
    classes = of_kind(render(values), "PriorityClass")
    assert [entry["metadata"]["name"] for entry in classes] == ["storage", "web"]
    assert classes[1]["value"] == 5
    assert find_classes(values) == {**dict.fromkeys(DATA, "storage"), API: "web"}


def test_existing_classes_are_used_without_creating_any() -> None:
    values = {"priorityClass": {"data": {"name": "storage"}}}
    assert not of_kind(render(values), "PriorityClass")
    assert find_classes(values) == {**dict.fromkeys(DATA, "storage"), API: None}


@pytest.mark.parametrize("section", ["", "flusher", "valkey"])
def test_class_of_a_workload_replaces_the_common_one(section: str) -> None:
    own = {"priorityClassName": "own"}
    values: Json = {"priorityClass": {"create": True}, **({section: own} if section else own)}
    target = {"": API, "flusher": "StatefulSet/busyapi-flusher"}.get(
        section, "StatefulSet/busyapi-valkey"
    )
    classes = find_classes(values)
    assert classes.pop(target) == "own"
    assert "own" not in classes.values()
