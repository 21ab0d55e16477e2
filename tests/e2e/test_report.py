"""The report contains passed and failed scenarios."""

import json
from pathlib import Path

import pytest

from e2e.measure import Figures, ScenarioFailed
from e2e.report import Report
from e2e.timeline import Point, write
from testkit.archive_reader import Archive
from testkit.checker import check_history
from testkit.history import History, Outcome, Request


def test_the_report_distinguishes_passed_failed_and_skipped(tmp_path: Path) -> None:
    report = Report({"Kubernetes": "v1.0"}, tmp_path)
    with report.row("rolling upgrade") as row:
        row.figures = Figures(sent=1000, answered=1000, silence=0.25, p99=0.0123)
        row.verdict = check_history(History(), Archive())
    with report.row("needs more") as row:
        row.skipped = True
        row.notes.append("needs a second node")
    with pytest.raises(ScenarioFailed):
        drain(report)
    assert [row.name for row in report.failed] == ["drain"]
    report.write()
    text = (tmp_path / "e2e.md").read_text()
    assert "| rolling upgrade | passed | 1,000 | 1,000 | 0 | 0 | 0 | 0.2 | 12 | 0 |" in text
    assert "| needs more | skipped |" in text
    assert "- **needs more**: needs a second node" in text
    assert "| drain | failed |  |  |  | 1 | 0 |" in text
    assert "ScenarioFailed: 1 of 5 requests failed" in text
    scenarios = json.loads((tmp_path / "e2e/e2e.json").read_text())["scenarios"]
    assert [scenario["passed"] for scenario in scenarios] == [True, False, False]
    assert scenarios[0]["load"]["sent"] == 1000


def drain(report: Report) -> None:
    history = History()
    history.add(Request(digests=(b"a",), outcome=Outcome.OK, ids=(1,), status=201))
    with report.row("drain") as row:
        row.verdict = check_history(history, Archive())
        raise ScenarioFailed("1 of 5 requests failed")


def test_an_error_outside_of_scenarios_fails_the_run(tmp_path: Path) -> None:
    report = Report({}, tmp_path)
    with pytest.raises(ScenarioFailed) as caught:
        drain(report)
    report.record_error("disturb", caught.value)
    assert len(report.failed) == 1
    report.record_error("disturb", TimeoutError("the namespace is still there"))
    assert [row.name for row in report.failed] == ["drain", "disturb: outside its scenarios"]


def test_a_timeline_is_a_table_and_a_picture(tmp_path: Path) -> None:
    points = [Point(float(n), 20.0, 20.0, 5.0, 2, 2, 0, 20 * n) for n in range(5)]
    write(points, "Autoscaling", tmp_path / "e2e" / "cpu")
    lines = (tmp_path / "e2e/cpu.csv").read_text().splitlines()
    assert lines[0] == "second,offered,answered,p99_ms,desired,ready,backlog,archived"
    assert len(lines) == 6
    assert (tmp_path / "e2e/cpu.png").read_bytes().startswith(b"\x89PNG")
