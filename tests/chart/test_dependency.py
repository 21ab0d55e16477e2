"""The chart inside a parent chart: conditions, tags, globals of others, nulls, and no key twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    find_object,
    load_chart,
    mode_name,
    of_kind,
    pods,
    render,
    render_texts,
    render_with_helm3,
    values_of,
)
from testkit.chart.umbrella import copy_chart_with_defaults, umbrella
from tools.generate.chart_defaults import NULL_MEANS_NONE

OTHERS: Json = {"imageRegistry": None, "imagePullSecrets": None, "storageClass": None, "env": None}
GLOBALS: list[Any] = [None, {}, OTHERS, {"postgresql": {"auth": {"database": "d"}}, "a": [1]}]
TAGS: Json = {"tags": {"ingestion": False}}


def comparable(documents: list[Json]) -> list[Json]:
    """Return the objects sorted, and without the passwords that each render generates."""
    plain = [d | {"data": None} if d["kind"] == "Secret" else d for d in documents]
    return sorted(plain, key=lambda d: (d["kind"], d["metadata"]["name"]))


def keys(values: Json, path: str = "") -> Iterator[str]:
    """Yield the path of each key at any depth."""
    for name, value in values.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{name}.")


def nest(path: str, value: Any) -> Json:
    for step in reversed(path.split(".")):
        value = {step: value}
    result: Json = value
    return result


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent chart without values of its own."""
    return umbrella(tmp_path_factory.mktemp("umbrella"), condition="busyapi.enabled")


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_mode_renders_the_same_objects_inside_a_parent_chart(
    mode: Path, parent: Path
) -> None:
    """`render` refuses a key that is there twice."""
    values = values_of(mode)
    inside = render({"busyapi": values, "global": values.pop("global", {})}, chart=parent)
    assert comparable(inside) == comparable(render(values_of(mode)))


@pytest.mark.parametrize(("enabled", "count"), [(True, 2), (False, 0)])
def test_condition_switches_the_chart_on_and_off(
    enabled: bool,  # noqa: FBT001
    count: int,
    tmp_path: Path,
) -> None:
    chart = umbrella(tmp_path / "umbrella", condition="busyapi.enabled")
    documents = render({"busyapi": {"enabled": enabled}}, chart=chart)
    assert len(of_kind(documents, "StatefulSet")) == count


def test_tag_switches_the_chart_off(tmp_path: Path) -> None:
    """Helm takes the dependency out of a loaded chart, so it comes last."""
    chart = umbrella(tmp_path / "umbrella", tags=["ingestion"])
    assert render(chart=chart)
    assert render(TAGS, chart=chart) == []


def test_alias_gives_a_second_installation(tmp_path: Path) -> None:
    chart = umbrella(tmp_path / "umbrella", alias="wards")
    assert find_object(render(release="prod", chart=chart), "Deployment", "prod-wards")


@pytest.mark.parametrize("shape", GLOBALS, ids=str)
def test_globals_of_any_shape_change_nothing(shape: Any, parent: Path) -> None:
    plain = comparable(render())
    assert comparable(render({"global": shape})) == plain
    assert comparable(render({"global": shape}, chart=parent)) == plain
    assert comparable(render_with_helm3({"global": shape}, chart=parent)) == plain
    assert comparable(render({"busyapi": {"global": shape}}, chart=parent)) == plain


@pytest.mark.parametrize("secrets", [["registry"], [{"name": "registry"}], ["registry"] * 2])
def test_global_pull_secrets_are_added_once_to_every_pod(secrets: list[Any], parent: Path) -> None:
    values = {"global": {"imagePullSecrets": secrets}}
    for chart, own in ((parent, {}), (CHART, {"imagePullSecrets": [{"name": "registry"}]})):
        for name, pod in pods(render(values | own, chart=chart)):
            assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}], name


def test_global_storage_class_is_that_of_volumes_without_one(parent: Path) -> None:
    own = {"flusher": {"persistence": {"storageClass": "slow"}}}
    values = {"global": {"storageClass": "fast"}, "busyapi": own}
    classes = {
        document["metadata"]["name"]: claim["spec"].get("storageClassName")
        for document in of_kind(render(values, chart=parent), "StatefulSet")
        for claim in document["spec"]["volumeClaimTemplates"]
    }
    assert classes == {"busyapi-flusher": "slow", "busyapi-valkey": "fast"}


def test_null_at_every_key_at_once_gives_the_defaults(parent: Path) -> None:
    values = dict.fromkeys(load_chart(CHART).values)
    del values["enabled"]  # Helm reads it as a condition, which a null does not fulfil.
    plain = comparable(render())
    assert comparable(render(values)) == plain
    assert comparable(render_with_helm3(values)) == plain
    assert comparable(render({"busyapi": values}, chart=parent)) == plain
    assert comparable(render_with_helm3({"busyapi": values}, chart=parent)) == plain


@pytest.mark.parametrize("name", sorted(load_chart(CHART).values.keys() - {"enabled"}))
def test_null_for_any_value_gives_its_default(name: str, parent: Path) -> None:
    plain = manifests({}, CHART)
    for path in value_paths():
        if path.split(".")[0] == name:
            assert manifests(nest(path, None), CHART) == plain, path
            assert manifests(nest(f"busyapi.{path}", None), parent) == plain, path


def manifests(values: Json, chart: Path) -> dict[str, str]:
    """Return the text of each template, except of those that generate passwords."""
    whole = render_texts(values, chart=chart)
    names = {path.partition("/templates/")[2]: path for path in whole}
    generated = {"flusher/secret.yaml", "tests/secret.yaml", "valkey/secret.yaml"}
    return {name: whole[path] for name, path in names.items() if name not in generated}


def value_paths() -> list[str]:
    """Return the path of each value and section whose null means its default."""
    defaults = (CHART / "files" / "defaults.yaml").read_text()
    rows = list(keys(yaml.safe_load(defaults)))
    return [row for row in rows if row not in NULL_MEANS_NONE]


def test_null_inside_a_value_removes_a_part_of_it(parent: Path) -> None:
    values = {
        "resources": {"limits": {"memory": None}},
        "podSecurityContext": {"runAsUser": None},
        "commonLabels": {"team": None},
        "strategy": {"rollingUpdate": None, "type": "Recreate"},
    }
    for documents in (render(values), render({"busyapi": values}, chart=parent)):
        spec = find_object(documents, "Deployment", "busyapi")["spec"]
        assert spec["strategy"] == {"type": "Recreate"}
        assert "runAsUser" not in spec["template"]["spec"]["securityContext"]
        assert "memory" not in str(spec["template"]["spec"]["containers"][0]["resources"]["limits"])


def test_every_template_completes_the_values_first() -> None:
    """Helm decides the order of the templates."""
    files = [*(CHART / "templates").rglob("*.yaml"), CHART / "templates" / "NOTES.txt"]
    first = '{{- include "busyapi.complete" . }}\n'
    assert [file.name for file in files if not file.read_text().startswith(first)] == []


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_missing_keys_take_their_defaults(
    mode: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As with `--reuse-values` of a release that has none of the keys."""
    bare = copy_chart_with_defaults(tmp_path_factory.mktemp("bare"))
    values = load_chart(CHART).merge_values(values_of(mode))
    partial = prune(values, load_chart(CHART).values)
    assert comparable(render(partial, chart=bare)) == comparable(render(values_of(mode)))


def prune(values: Json, defaults: Json) -> Json:
    """Return the values without those that are the default."""
    return {name: value for name, value in values.items() if value != defaults.get(name)}
