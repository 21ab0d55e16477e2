"""Which release is upgraded from, and when an upgrade may cost a request."""

from pathlib import Path

import pytest

from e2e.measure import Broken, Figures
from e2e.report import Row
from e2e.scenarios import lifetime

FAILED = Figures(sent=10, answered=8, failed=2, silence=7.0, statuses={201: 8, 503: 2})


def released(folder: Path, monkeypatch: pytest.MonkeyPatch, *versions: str) -> str:
    chart = folder / "chart"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("version: 0.10.0\n")
    for each in versions:
        (folder / f"busyapi-{each}.tgz").touch()
    monkeypatch.setattr(lifetime, "CHART", chart)
    monkeypatch.setattr(lifetime, "RELEASED", folder)
    found = lifetime.previous()
    return found.name if found else ""


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ((), ""),
        (("0.10.0", "0.11.0"), ""),
        (("0.2.0", "0.9.1", "0.9.0", "0.10.0", "1.0.0"), "busyapi-0.9.1.tgz"),
    ],
)
def test_the_newest_before_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: tuple[str, ...], found: str
) -> None:
    assert released(tmp_path, monkeypatch, *versions) == found


def test_only_another_valkey_may_cost_requests() -> None:
    with pytest.raises(Broken, match="2 of 10"):
        lifetime.judge(Row("upgrade"), FAILED, rolled=False)
    row = Row("upgrade")
    lifetime.judge(row, FAILED, rolled=True)
    assert row.notes[1].startswith("2 x 503")


def test_and_not_for_long() -> None:
    silent = Figures(sent=10, answered=8, failed=2, silence=61.0)
    with pytest.raises(Broken, match=r"61\.0 s"):
        lifetime.judge(Row("upgrade"), silent, rolled=True)
