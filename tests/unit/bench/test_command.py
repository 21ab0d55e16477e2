"""The command, once, as short as possible."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.cli import main
from bench.scenarios import Row, make_comparisons
from perf import archive_ids
from perf.archive_ids import Archived
from perf.stack import BusyapiStack
from testkit.http1 import fetch
from testkit.processes import Api

SERVICE = Path(__file__).parents[3] / "service"

SHORT_RUN = ["--scenario", "batches", "--seconds", "1", "--rounds", "1", "--connections", "4"]


def test_a_short_run_agrees_with_itself_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work := tmp_path / "work").mkdir()
    result = tmp_path / "result.json"
    assert main([*SHORT_RUN, "--folder", str(work), "--json", str(result)]) == 0
    (row,) = json.loads(result.read_text())["scenarios"]["batches"]
    assert row["counts"]["lines"] == row["counts"]["stored"] > 100
    assert row["durability"]["appendfsync"] == "always"
    assert [run["lag"]["missed"] for run in row["runs"]] == [0]
    assert row["median"]["fast_path_share"] > 0.99
    assert "| agree |" in capsys.readouterr().out
    assert not list(work.iterdir())


def test_a_run_with_a_line_missing_in_the_archive_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = archive_ids.count_lines

    def count_one_less(folder: Path) -> Archived:
        archived = count(folder)
        archived.lines -= 1
        return archived

    monkeypatch.setattr(archive_ids, "count_lines", count_one_less)
    assert main([*SHORT_RUN, "--folder", str(tmp_path)]) == 1
    assert "| FAILED |" in capsys.readouterr().out


def test_another_checkout_is_measured_with_this_one(tmp_path: Path) -> None:
    """The copy has another version, which shows which one ran."""
    service = Path(shutil.copytree(SERVICE, tmp_path / "older" / "service"))
    module = service / "busyapi" / "telemetry" / "metrics.py"
    module.write_text(module.read_text().replace('version("busyapi")', '"older"'))
    rows = make_comparisons(tmp_path / "older")[0].rows
    assert [read_version(row, tmp_path / str(n)) for n, row in enumerate(rows)] == [
        version("busyapi"),
        "older",
    ]


def read_version(row: Row, folder: Path) -> str:
    """Return the version in the metrics of a contender's API."""
    with row.make(folder) as contender:
        assert isinstance(contender, BusyapiStack)
        (api,) = contender.stack.apis
        match = re.search(r'busyapi_build_info\{.*version="([^"]+)"', fetch_metrics(api))
    assert match
    return match[1]


def fetch_metrics(api: Api) -> str:
    """Return the metrics of an API process."""
    return fetch(api.scrape_port, "/metrics").body.decode()


def test_without_wrk_the_error_names_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(SHORT_RUN) == 2
    assert "apt-get install wrk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--rounds", "many"],
        ["--connections", "1"],
        ["--scenario", "none"],
        ["--folder", "/nowhere"],
        ["--json", "/nowhere/result.json"],
        ["--before", "/"],
    ],
)
def test_invalid_arguments_are_refused_before_anything_starts(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
