"""Every mode passes lint, and Helm 4 and Helm 3 render the same objects."""

from pathlib import Path

import helm_python
import pytest

from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    mode_name,
    render,
    render_with_helm3,
    values_of,
)

REQUIRED = {
    "default",
    "autoscaling-cpu",
    "autoscaling-requests",
    "keda",
    "external-redis-standalone",
    "external-redis-sentinel",
    "external-redis-sentinel-tls",
    "external-redis-managed",
    "external-redis-cluster",
    "ingress",
    "httproute",
    "everything",
}


def without_passwords(documents: list[Json]) -> list[Json]:
    """Return the documents without generated passwords."""
    return [
        document | {"data": None} if document["kind"] == "Secret" else document
        for document in documents
    ]


def sort_key(document: Json) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def test_every_mode_has_a_values_file() -> None:
    assert {mode_name(mode) for mode in MODES} >= REQUIRED


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_lint_finds_no_problem(mode: Path) -> None:
    report = helm_python.lint(CHART, values_of(mode), strict=True)
    assert report["total_charts_linted"] == 1
    assert not report["errors"]
    # The chart has no icon, because there is no address for one.
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


def test_lint_finds_a_wrong_value() -> None:
    assert helm_python.lint(CHART, {"replicaCounts": 2}, strict=True)["errors"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_helm_3_and_helm_4_render_the_same_objects(mode: Path) -> None:
    values = values_of(mode)
    four, three = (
        sorted(documents, key=sort_key) for documents in (render(values), render_with_helm3(values))
    )
    assert without_passwords(four) == without_passwords(three)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_upgrade_and_install_render_the_same_objects(mode: Path) -> None:
    values = values_of(mode)
    assert without_passwords(render(values)) == without_passwords(render(values, upgrade=True))


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_objects_are_unique_and_in_the_release_namespace(mode: Path) -> None:
    documents = render(values_of(mode))
    names = [sort_key(document) for document in documents]
    assert len(names) == len(set(names))
    labelled = [document for document in documents if document["metadata"].get("labels")]
    cluster_scoped = [document for document in labelled if document["kind"] == "PriorityClass"]
    assert all("namespace" not in document["metadata"] for document in cluster_scoped)
    others = [document for document in labelled if document not in cluster_scoped]
    assert {document["metadata"]["namespace"] for document in others} == {"usages"}
