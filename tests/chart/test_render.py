"""Every mode is linted without a word and rendered alike by Helm 4 and Helm 3."""

from pathlib import Path

import helm_python
import pytest

from testkit.chart.rendering import CHART, MODES, Json, mode_name, render, render3, values_of

WANTED = {
    "default",
    "autoscaling-cpu",
    "autoscaling-requests",
    "keda",
    "external-redis-standalone",
    "external-redis-sentinel",
    "external-redis-cluster",
    "ingress",
    "httproute",
    "everything",
}


def without_passwords(documents: list[Json]) -> list[Json]:
    """As they are, but for what a first install makes at random."""
    return [each | {"data": None} if each["kind"] == "Secret" else each for each in documents]


def sort_key(document: Json) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def test_there_is_a_file_for_every_mode() -> None:
    assert {mode_name(mode) for mode in MODES} >= WANTED


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_lint_has_nothing_to_say(mode: Path) -> None:
    report = helm_python.lint(CHART, values_of(mode), strict=True)
    assert report["total_charts_linted"] == 1
    assert not report["errors"]
    # There is no address to have one from.
    assert {each["error"] for each in report["messages"]} <= {"icon is recommended"}


def test_lint_finds_what_is_wrong() -> None:
    assert helm_python.lint(CHART, {"replicaCounts": 2}, strict=True)["errors"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_helm_3_and_helm_4_make_the_same_objects(mode: Path) -> None:
    values = values_of(mode)
    four, three = (sorted(each, key=sort_key) for each in (render(values), render3(values)))
    assert without_passwords(four) == without_passwords(three)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_an_upgrade_renders_as_an_install_does(mode: Path) -> None:
    values = values_of(mode)
    assert without_passwords(render(values)) == without_passwords(render(values, upgrade=True))


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_object_is_made_twice_and_all_are_in_the_release_namespace(mode: Path) -> None:
    documents = render(values_of(mode))
    names = [sort_key(each) for each in documents]
    assert len(names) == len(set(names))
    own = [each for each in documents if each["metadata"].get("labels")]
    assert {each["metadata"]["namespace"] for each in own} == {"usages"}
