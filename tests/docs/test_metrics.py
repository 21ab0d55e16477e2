"""Processes expose the defined metrics; alerts, panels and the autoscaler read existing ones."""

import re
from pathlib import Path

import pytest

from busyapi import errors
from busyapi.api.archive_client import ArchiveUnavailable
from busyapi.telemetry import metric_defs_api
from busyapi.telemetry.lake_metrics import LakeMetrics, LakeProgress, PartitionProgress
from busyapi.telemetry.metric_defs import MetricDef
from busyapi.telemetry.metrics import ApiMetrics, FlusherMetrics, Metrics
from tools.generate.metric_readers import (
    collect_readers,
    expand_records,
    find_family,
    find_readers,
    load_rules,
    read_alerts,
    read_panels,
    read_records,
)
from tools.generate.metrics_page import ROWS, SECTIONS, alerts_first

ROOT = Path(__file__).parents[2]
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/*.md")]


def shorten(readers: set[str]) -> tuple[str, ...]:
    """Return readers as a definition lists them: a panel counts as its dashboard."""
    return tuple(sorted({reader.partition(":")[0] for reader in readers}, key=alerts_first))


def make_metrics(role: str) -> Metrics:
    """Return the metrics of a role."""
    if role == "API":
        return ApiMetrics("fsync")
    if role == "Flusher":
        return FlusherMetrics("fsync")
    progress = LakeProgress(0, 0, [PartitionProgress(0, 0.0, 0, 0, 0, 0.0)])
    return LakeMetrics(lambda: progress)


@pytest.mark.parametrize("role", SECTIONS)
def test_each_role_exposes_exactly_its_defined_metrics(role: str) -> None:
    rows = SECTIONS[role]
    families = {family.name: family for family in make_metrics(role).registry.collect()}
    assert families.keys() == {row.name for row in rows}
    for row in rows:
        family = families[row.name]
        assert (family.type, family.documentation) == (row.kind, row.help)
        names = {name for sample in family.samples for name in sample.labels} - {"le"}
        known = {label.name for label in row.labels}
        known |= {"partition"} if role == "Flusher" else set()
        assert not family.samples or names == known, row.name


def test_each_definition_lists_its_readers_and_only_defined_metrics_are_read() -> None:
    readers_by_metric = {
        name: shorten(readers) for name, readers in find_readers(set(ROWS)).items()
    }
    assert readers_by_metric == {name: row.read_by for name, row in ROWS.items()}


def test_recording_rules_that_exist_are_those_that_are_read() -> None:
    records = read_records(load_rules())
    read = set[str]().union(*collect_readers().values(), *records.values())
    assert {name for name in read if name.startswith("busyapi:")} == records.keys()


RULES = {
    "groups": [
        {"rules": [{"record": "busyapi:a:sum", "expr": "sum(busyapi_a_total)"}]},
        {"rules": [{"alert": "A", "expr": 'busyapi:a:sum{x="busyapi_b"} > busyapi_c_bucket'}]},
    ]
}


def test_a_reader_is_found_through_a_recording_rule_and_labels_are_ignored() -> None:
    (alert, read), *others = read_alerts(RULES)
    assert (alert, others) == ("A", [])
    names = expand_records(read, read_records(RULES))
    assert names == {"busyapi:a:sum", "busyapi_a_total", "busyapi_c_bucket"}
    assert {find_family(name, {"busyapi_a"}) for name in names} >= {"busyapi_a", "busyapi_c"}


def test_a_panel_and_a_variable_are_readers() -> None:
    variable = {"name": "release", "query": {"query": "label_values(busyapi_b, release)"}}
    inner = {"title": "Inner", "targets": [{"expr": "busyapi_a"}]}
    board = {
        "title": "busyapi / Overview",
        "panels": [{"title": "Row", "panels": [inner]}],
        "templating": {"list": [variable]},
    }
    assert [*read_panels(board)] == [
        ("Overview: Inner", {"busyapi_a"}),
        ("Overview: $release", {"busyapi_b"}),
    ]


def test_defined_label_values_are_those_of_the_code() -> None:
    refusals = {error.__name__ for error in errors.Refused.__subclasses__()}
    assert ArchiveUnavailable.__name__ in refusals
    assert set(metric_defs_api.REFUSAL_REASONS) == refusals | {errors.OutcomeUnknown.__name__}
    assert set(metric_defs_api.COMMITTER_FAILURE_REASONS) <= refusals


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_names_follow_the_conventions(row: MetricDef) -> None:
    assert re.fullmatch(r"busyapi_[a-z]+(_[a-z]+)*", row.name)
    assert not row.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
    assert not re.search(r"_(ms|milliseconds|minutes|hours|kib|mib|percent)(_|$)", row.name)
    assert row.help.endswith(".")
    assert (row.kind == "histogram") == bool(row.buckets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_in_a_document_exists(document: Path) -> None:
    known = {name + suffix for name in ROWS for suffix in SUFFIXES}
    # The adapter computes this one.
    known.add("busyapi_requests_per_second")
    if document.name == "CHANGELOG.md":
        known |= {  # renamed
            "busyapi_durability_held",
            "busyapi_lane_failures_total",
            "busyapi_lanes_ready",
            "busyapi_seeded",
        }
    assert set(re.findall(r"\bbusyapi_[a-z_]+[a-z]\b", document.read_text())) <= known
