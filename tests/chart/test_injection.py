"""No text in the values changes another part of the manifests, and no number has an exponent."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml

from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    find_object,
    list_strings,
    load_chart,
    mode_name,
    of_kind,
    pods,
    render,
    render_texts,
    values_of,
)

PLAIN_TEXT = "zz"
TEXTS = [
    "zz: &a *b\" # ' }: [\r      hostNetwork: true\n hostNetwork: true\n---\na: b",
    'zz"\n-\thostNetwork:\nzz',  # without a space, which some patterns refuse
]
TRIED = [
    mode
    for mode in MODES
    if mode_name(mode)
    in {
        "everything",
        "existing-secrets",
        "external-redis-sentinel",
        "external-redis-standalone",
        "ingress",
        "keda",
    }
]
NUMBER = 123_456_789
KeyPath = tuple[Any, ...]


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value that is neither a map nor a list, with its path."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path, value
    for name, child in items:
        yield from leaves(child, (*path, name))


def replace(values: Json, paths: list[KeyPath], value: Any) -> Json:
    """Return the values with this value at each path."""
    copy = deepcopy(values)
    for *parents, last in paths:
        at: Any = copy
        for step in parents:
            at = at[step]
        at[last] = value
    return copy


def refused(values: Json) -> list[KeyPath]:
    """Return the paths of the values that the schema refuses."""
    errors = jsonschema.Draft7Validator(load_chart(CHART).schema or {}).iter_errors(values)
    return [tuple(error.absolute_path) for error in errors]


def is_refused(values: Json) -> bool:
    """Return whether a template refuses the values."""
    try:
        render_texts(values)
    except helm_python.HelmError as error:
        if "busyapi: " not in str(error):
            raise
        return True
    return False


def groups(values: Json, paths: list[KeyPath], *replacements: Any) -> Iterator[list[KeyPath]]:
    """Yield the paths in groups that may have each of the replacements at once.

    A path whose replacement contradicts the mode by itself is left out.
    """
    if not any(is_refused(replace(values, paths, value)) for value in replacements):
        yield paths
    elif len(paths) > 1:
        half = len(paths) // 2
        yield from groups(values, paths[:half], *replacements)
        yield from groups(values, paths[half:], *replacements)


def without_text(value: Any, text: str) -> Any:
    """Return an object with the plain text instead, without what is made of the text."""
    if isinstance(value, dict):
        if value.get("kind") == "Secret":
            value = value | {"data": sorted(value["data"])}
        return {
            without_text(name, text): without_text(child, text)
            for name, child in value.items()
            if not str(name).startswith("checksum/")
        }
    if isinstance(value, list):
        return [without_text(child, text) for child in value]
    return value.replace(text, PLAIN_TEXT) if isinstance(value, str) else value


def accepted(mode: Path, value: Any, *kinds: type) -> list[KeyPath]:
    """Return the paths where a mode has a value of these kinds, and the schema accepts this one."""
    values = load_chart(CHART).merge_values(values_of(mode))
    paths = [
        path
        for path, old in leaves(values)
        if (old is None or type(old) in kinds) and path[0] != "extraObjects"
    ]
    no = refused(replace(values, paths, value))
    return [path for path in paths if path not in no]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("mode", TRIED, ids=mode_name)
def test_text_changes_only_the_string_that_it_is(mode: Path, text: str) -> None:
    values = load_chart(CHART).merge_values(values_of(mode))
    paths = accepted(mode, text, str)
    for group in groups(values, paths, PLAIN_TEXT, text):
        plain = render(replace(values, group, PLAIN_TEXT))
        try:
            changed = render(replace(values, group, text))
        except yaml.YAMLError as error:
            raise AssertionError(group) from error
        assert [without_text(document, text) for document in changed] == [
            without_text(document, PLAIN_TEXT) for document in plain
        ], group


def test_text_is_tried_in_nearly_every_value_of_the_mode_with_everything() -> None:
    (everything,) = (mode for mode in MODES if mode_name(mode) == "everything")
    paths = accepted(everything, TEXTS[0], str)
    assert len(paths) > 100
    assert ("priorityClassName",) in paths
    assert ("flusher", "persistence", "storageClass") in paths
    values = load_chart(CHART).merge_values(values_of(everything))
    documents = render(replace(values, [("priorityClassName",)], TEXTS[0]))
    spec = find_object(documents, "Deployment", "busyapi")["spec"]["template"]["spec"]
    assert spec["priorityClassName"] == TEXTS[0]
    assert "hostNetwork" not in spec


@pytest.mark.parametrize("mode", TRIED, ids=mode_name)
def test_no_number_has_an_exponent(mode: Path) -> None:
    values = load_chart(CHART).merge_values(values_of(mode))
    for group in groups(values, accepted(mode, NUMBER, int, float), NUMBER):
        manifests = "\n".join(render_texts(replace(values, group, NUMBER)).values())
        assert not re.search(r"1\.23\d*e\+?\d", manifests), group


@pytest.mark.parametrize(("rate", "text"), [(1_000_000, "1000000"), (0.5, "0.5"), (50, "50")])
def test_rate_limit_is_written_as_a_plain_number(rate: float, text: str) -> None:
    data = find_object(render({"config": {"rateLimit": rate}}), "ConfigMap", "busyapi")["data"]
    assert data["BUSYAPI_RATE_LIMIT"] == text


LABELS = [
    f"app.kubernetes.io/{name}"
    for name in ("name", "instance", "component", "version", "managed-by", "part-of")
]
ANNOTATIONS = [
    *(f"prometheus.io/{name}" for name in ("scrape", "port", "path")),
    *(f"checksum/{name}" for name in ("config", "users", "writer-salt")),
    "helm.sh/hook",
    "helm.sh/hook-delete-policy",
    "helm.sh/resource-policy",
]


def hostile(labels: list[str], annotations: list[str]) -> Json:
    """Return values that set these labels and annotations wherever that is possible."""
    marks: Json = {
        "annotations": dict.fromkeys(annotations, "mine"),
        "labels": dict.fromkeys(labels, "mine"),
    }
    own = {"podLabels": marks["labels"], "podAnnotations": marks["annotations"]}
    pod = own | {"annotations": marks["annotations"]}
    return pod | {
        "commonLabels": marks["labels"],
        "commonAnnotations": marks["annotations"],
        "flusher": pod,
        "valkey": pod,
        "service": marks,
        "tests": marks,
        "auth": {"tokens": "read t"},
        "metrics": {
            "annotations": {"enabled": True},
            "prometheusRule": marks | {"enabled": True},
            "dashboards": marks | {"enabled": True},
        },
        "ingress": marks | {"enabled": True, "hosts": [{"host": ""}]},
        "httpRoute": marks | {"enabled": True, "parentRefs": [{"name": "g"}]},
    }


def test_no_label_or_annotation_of_a_user_is_there_twice_or_replaces_a_selector() -> None:
    """`render` refuses a key that is there twice."""
    documents = render(hostile([*LABELS, "helm.sh/chart", "team"], ANNOTATIONS))
    plain = {d["metadata"]["name"] + d["kind"]: d for d in render(hostile([], []))}
    assert len(documents) == len(plain)
    for document in documents:
        before = plain[document["metadata"]["name"] + document["kind"]]
        labels = document["metadata"]["labels"]
        assert labels["team"] == "mine"
        for name in LABELS[:3]:
            assert labels[name] == before["metadata"]["labels"][name]
        assert (document.get("spec") or {}).get("selector") == (before.get("spec") or {}).get(
            "selector"
        )
    for name, pod in pods(documents):
        assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "busyapi", name
        assert pod["metadata"]["labels"]["team"] == "mine"
    for workload in [*of_kind(documents, "Deployment"), *of_kind(documents, "StatefulSet")]:
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert len(annotations["checksum/config"]) == 64
        assert annotations["prometheus.io/port"] == "mine"
    (test,) = of_kind(documents, "Pod")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_mode_renders_with_labels_that_the_chart_sets_itself(mode: Path) -> None:
    values = hostile([*LABELS, "helm.sh/chart"], ANNOTATIONS)
    common = {name: values[name] for name in ("commonLabels", "commonAnnotations")}
    for section in (common | {"podLabels": values["podLabels"]}, common):
        merged = load_chart(CHART).merge_values(values_of(mode) | section)
        for section_name in ("flusher", "valkey"):
            merged[section_name] |= {
                "podLabels": values["podLabels"],
                "podAnnotations": values["podAnnotations"],
            }
        for name, pod in pods(render(merged)):
            assert pod["metadata"]["labels"][LABELS[1]] == "busyapi", name


def test_key_with_a_line_break_stays_a_key() -> None:
    values = {"commonLabels": {TEXTS[0]: "a"}, "podAnnotations": {TEXTS[1]: "a"}}
    documents = render(values)
    assert all(TEXTS[0] in document["metadata"]["labels"] for document in documents)
    template = find_object(documents, "Deployment", "busyapi")["spec"]["template"]
    assert TEXTS[1] in template["metadata"]["annotations"]
    assert "hostNetwork" not in template["spec"]


def test_common_annotations_are_on_every_object_but_not_on_pods() -> None:
    documents = render({"commonAnnotations": {"owner": "devices"}})
    for document in documents:
        assert document["metadata"]["annotations"]["owner"] == "devices"
        template = (document.get("spec") or {}).get("template") or {}
        assert "owner" not in set(list_strings(template))


def test_workloads_have_annotations_of_their_own() -> None:
    values = {
        "annotations": {"a": "api"},
        "flusher": {"annotations": {"a": "flusher"}},
        "valkey": {"annotations": {"a": "valkey"}},
    }
    documents = render(values)
    workloads = [*of_kind(documents, "Deployment"), *of_kind(documents, "StatefulSet")]
    for workload in workloads:
        component = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        annotations = workload["metadata"]["annotations"]
        own = {name for name in annotations if name.startswith("busyapi/")}
        assert own == ({"busyapi/base", "busyapi/flushers"} if component == "flusher" else set())
        assert annotations == {"a": component} | {name: annotations[name] for name in own}
        assert "a" not in (workload["spec"]["template"]["metadata"]["annotations"])


def test_test_pod_has_labels_annotations_resources_and_a_switch() -> None:
    limits = {"cpu": "100m", "memory": "64Mi"}
    tests: Json = {
        "labels": {"sidecar.istio.io/inject": "false"},
        "annotations": {"a": "b"},
        "resources": {"limits": limits},
    }
    (pod,) = of_kind(render({"tests": tests}), "Pod")
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"]["a"] == "b"
    assert pod["spec"]["containers"][0]["resources"]["limits"] == limits
    assert of_kind(render({"tests": {"enabled": False}}), "Pod") == []
