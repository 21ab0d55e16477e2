"""The command itself, once, as short as it goes."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.cli import main
from bench.scenarios import Row, before
from perf import archive_ids
from perf.archive_ids import Archived
from perf.stack import Durable
from testkit.http1 import fetch
from testkit.processes import Api

SERVICE = Path(__file__).parents[3] / "service"

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
    count = archive_ids.count

    def one_less(folder: Path) -> Archived:
        found = count(folder)
        found.lines -= 1
        return found

    monkeypatch.setattr(archive_ids, "count", one_less)
    assert main([*SHORT, "--folder", str(tmp_path)]) == 1
    assert "| FAILED |" in capsys.readouterr().out


def test_another_checkout_is_measured_beside_this_one(tmp_path: Path) -> None:
    """The copy says another version, so that it shows which one ran."""
    service = Path(shutil.copytree(SERVICE, tmp_path / "older" / "service"))
    catalogue = service / "busyapi" / "telemetry" / "metrics.py"
    catalogue.write_text(catalogue.read_text().replace('version("busyapi")', '"older"'))
    rows = before(tmp_path / "older")[0].rows
    assert [version_of(row, tmp_path / str(n)) for n, row in enumerate(rows)] == [
        version("busyapi"),
        "older",
    ]


def version_of(row: Row, folder: Path) -> str:
    """Return the version that a contender's API tells Prometheus."""
    with row.make(folder) as contender:
        assert isinstance(contender, Durable)
        (api,) = contender.stack.apis
        found = re.search(r'busyapi_build_info\{.*version="([^"]+)"', exposed(api))
    assert found
    return found[1]


def exposed(api: Api) -> str:
    """Return what an API process tells Prometheus."""
    return fetch(api.scrape_port, "/metrics").body.decode()


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
        ["--before", "/"],
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
