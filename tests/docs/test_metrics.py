"""metrics.py is the catalogue: every metric is in it, is given, and somebody reads it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi import metrics
from busyapi.metrics import ApiMetrics, FlusherMetrics

ROOT = Path(__file__).parents[2]
SOURCE = Path(metrics.__file__).read_text()
MAKERS = {
    "Gauge": "",
    "Histogram": "",
    "PrometheusCounter": "",
    "CounterMetricFamily": "",
    "HistogramMetricFamily": "",
    "gauge": "busyapi_",
    "counter": "busyapi_",
    "histogram": "busyapi_",
}
"""What makes a metric there, and what it puts before its name."""

SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def made() -> Iterator[tuple[str, int]]:
    """Give the name of each metric in the source and the line of its statement."""
    for statement in ast.walk(ast.parse(SOURCE)):
        if not isinstance(statement, ast.Assign):
            continue
        for node in ast.walk(statement):
            match node:
                case ast.Call(func=ast.Name(id=maker), args=[ast.Constant(value=str(name)), *_]):
                    if maker in MAKERS:
                        yield MAKERS[maker] + name, statement.lineno


def given() -> set[str]:
    """Return the families that the two roles give."""
    registries = ApiMetrics("fsync").registry, FlusherMetrics("fsync").registry
    return {family.name for registry in registries for family in registry.collect()}


def test_every_metric_of_the_catalogue_is_given_and_the_other_way_round() -> None:
    assert {name for name, _ in made()} == given()


@pytest.mark.parametrize(("name", "line"), [*made()], ids=str)
def test_every_metric_says_who_reads_it(name: str, line: int) -> None:
    above = (text.strip() for text in reversed(SOURCE.splitlines()[: line - 1]))
    for text in above:
        assert text, f"{name} has no comment with its reader"
        if text.startswith("# Read by "):
            return
    pytest.fail(f"{name} has no comment with its reader")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_in_a_document_exists(document: Path) -> None:
    known = {name + suffix for name in given() for suffix in SUFFIXES}
    assert set(re.findall(r"\bbusyapi_[a-z_]+\b", document.read_text())) <= known
