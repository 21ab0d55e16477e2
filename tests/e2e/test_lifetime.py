"""The release to upgrade from, and when an upgrade may fail requests."""

from pathlib import Path

import pytest

from e2e.measure import Figures, ScenarioFailed
from e2e.report import Row
from e2e.scenarios import lifetime

FAILED = Figures(sent=10, answered=8, failed=2, silence=7.0, statuses={201: 8, 503: 2})


def find_previous(folder: Path, monkeypatch: pytest.MonkeyPatch, *versions: str) -> str:
    chart = folder / "chart"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("version: 0.10.0\n")
    for version in versions:
        (folder / f"busyapi-{version}.tgz").touch()
    monkeypatch.setattr(lifetime, "CHART", chart)
    monkeypatch.setattr(lifetime, "RELEASED", folder)
    chart_archive = lifetime.find_previous_chart()
    return chart_archive.name if chart_archive else ""


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ((), ""),
        (("0.10.0", "0.11.0"), ""),
        (("0.2.0", "0.9.1", "0.9.0", "0.10.0", "1.0.0"), "busyapi-0.9.1.tgz"),
    ],
)
def test_the_newest_release_before_this_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: tuple[str, ...], expected: str
) -> None:
    assert find_previous(tmp_path, monkeypatch, *versions) == expected


def test_requests_may_fail_only_if_valkey_is_replaced() -> None:
    with pytest.raises(ScenarioFailed, match="2 of 10"):
        lifetime.judge_upgrade(Row("upgrade"), FAILED, rolled=False)
    row = Row("upgrade")
    lifetime.judge_upgrade(row, FAILED, rolled=True)
    assert row.notes[1].startswith("2 x 503")


def test_requests_may_not_fail_for_long() -> None:
    silent = Figures(sent=10, answered=8, failed=2, silence=61.0)
    with pytest.raises(ScenarioFailed, match=r"61\.0 s"):
        lifetime.judge_upgrade(Row("upgrade"), silent, rolled=True)
