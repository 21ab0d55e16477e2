"""The command itself, once, as short as it goes."""

import json
from pathlib import Path

import pytest

from bench import archived
from bench.archived import Archived
from bench.cli import main

SHORT = ["--scenario", "batches", "--seconds", "1", "--rounds", "1", "--connections", "4"]


def test_a_short_run_agrees_with_itself_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work := tmp_path / "work").mkdir()
    result = tmp_path / "result.json"
    assert main([*SHORT, "--folder", str(work), "--json", str(result)]) == 0
    (row,) = json.loads(result.read_text())["scenarios"]["batches"]
    assert row["counts"]["lines"] == row["counts"]["stored"] > 100
    assert row["durability"]["appendfsync"] == "always"
    assert [each["lag"]["missed"] for each in row["runs"]] == [0]
    assert "| agree |" in capsys.readouterr().out
    assert not list(work.iterdir())


def test_a_run_whose_archive_lacks_a_line_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = archived.count

    def one_less(folder: Path) -> Archived:
        found = count(folder)
        found.lines -= 1
        return found

    monkeypatch.setattr(archived, "count", one_less)
    assert main([*SHORT, "--folder", str(tmp_path)]) == 1
    assert "| FAILED |" in capsys.readouterr().out


def test_without_wrk_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(SHORT) == 2
    assert "apt-get install wrk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seconds", "0"],
        ["--rounds", "many"],
        ["--connections", "1"],
        ["--scenario", "none"],
        ["--folder", "/nowhere"],
        ["--json", "/nowhere/result.json"],
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
