"""A short run is reported as JSON, pictures and a page that fetches nothing. Two are compared."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from loadtest import machine
from loadtest.__main__ import main, print_progress
from loadtest.cluster import parse_quantity
from loadtest.local import start_local
from loadtest.page import render_page
from loadtest.plot import _errors, _latencies, _rates, _series, draw_pictures
from loadtest.report import write
from loadtest.result import read
from loadtest.run import Plan, run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a run on its own stack."""
    folder = tmp_path_factory.mktemp("report")
    plan = Plan(
        rate=100,
        seconds=3,
        connections=16,
        devices=9,
        invalid=0.1,
        even=False,
        scripts=(),
        warm_up=0.5,
    )
    with start_local(tmp_path_factory.mktemp("stack"), 1) as target:
        write(run(target, plan, print_progress), folder)
    return folder


def test_the_counts_and_series_are_in_the_json(report: Path) -> None:
    result = read(report / "result.json")
    warm, row = result["rows"]
    assert (warm["tool"], row["tool"]) == ("warm-up", "open loop")
    assert row["sent"] == result["openloop"]["planned"] == 300
    assert row["created"] == row["archived"] == row["stored"]
    assert row["refused"] > 0 == row["missing"] == row["duplicates"] == row["unknown"]
    assert row["proven"]
    assert len(result["openloop"]["series"]) >= 3
    assert result["samples"][-1]["resident"].keys() == {"api-0", "flusher", "valkey"}
    assert result["failures"] == []


def test_the_page_has_every_picture_and_fetches_nothing(report: Path) -> None:
    text = (report / "index.html").read_text()
    pictures = {path.stem for path in report.glob("*.png")}
    assert pictures == {"rate", "latency", "spikes", "errors", "backlog", "memory", "cpu"}
    assert text.count('src="data:image/png;base64,') == len(pictures)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "All counts agree, and there were no thresholds." in text
    assert "There were no thresholds: no k6 script ran." in text
    assert "<td>p99.9 ms</td>" in text
    assert "<th>maximum p99, ms</th>" in text


def test_latencies_are_plain_numbers_and_the_incomplete_last_second_is_left_out(
    report: Path,
) -> None:
    result = read(report / "result.json")
    result["openloop"]["series"] = [
        {**result["openloop"]["series"][0], "at": at, "p50": 3, "p999": 20} for at in range(4)
    ]
    figure = Figure()
    axes = figure.subplots()
    _latencies(axes, result)
    figure.canvas.draw()
    lowest, highest = axes.get_ylim()
    names = {
        text.get_text()
        for text in axes.get_yticklabels(which="both")
        if lowest <= text.get_position()[1] <= highest
    }
    assert {"5", "10", "20"} <= names
    assert not any("$" in name for name in names)
    result["openloop"]["elapsed"] = 3.1
    # In the fourth second only answers to requests of the third arrived.
    assert _series(result, "p50") == ([0, 1, 2], [3, 3, 3])


def test_the_axis_begins_at_0_and_has_room_above_the_highest_value(report: Path) -> None:
    result = read(report / "result.json")
    # The values are equal in every second: only the room above separates the line from the frame.
    result["openloop"]["series"] = [
        {**second, "planned": 100, "answered": 100, "refused": 0, "failed": 0}
        for second in result["openloop"]["series"]
    ]
    for draw, highest_value in ((_rates, 100), (_errors, 0)):
        axes = Figure().subplots()
        draw(axes, result)
        lowest, highest = axes.get_ylim()
        assert lowest == 0
        assert highest > highest_value * 1.05


def test_a_picture_without_data_is_not_drawn(report: Path, tmp_path: Path) -> None:
    result = read(report / "result.json")
    result["openloop"]["created"] = 0
    assert {"latency", "cpu"}.isdisjoint(
        path.stem for path in draw_pictures(result, tmp_path).values()
    )


def test_a_failure_is_at_the_top_of_the_page(report: Path) -> None:
    result = read(report / "result.json")
    result["failures"] = ["open loop: 3 <lost>"]
    text = render_page(result, {})
    assert "verdict bad" in text
    assert "3 &lt;lost&gt;" in text
    assert "All counts agree" not in text


def test_thresholds_are_listed_with_limit_and_value(report: Path) -> None:
    result = read(report / "result.json")
    durations = {"med": 1, "p(95)": 2.5, "p(99)": 1115.4, "max": 2000}
    smoke = {
        "http_reqs": {"count": 3, "rate": 1},
        "http_req_duration{due:201}": {
            **durations,
            "thresholds": {"p(95)<500": False, "p(99)<1000": True},
        },
        "dropped_iterations": {"count": 0, "thresholds": {"count==0": False}},
    }
    result["k6"] = {"smoke": smoke}
    text = render_page(result, {})
    rows = re.findall(r"<tr><td>([^<]+</td><td>smoke(?:</td><td>[^<]+){3})</td></tr>", text)
    assert [row.split("</td><td>") for row in rows] == [
        ["http_req_duration{due:201}", "smoke", "p(95)&lt;500", "2.5", "held"],
        ["http_req_duration{due:201}", "smoke", "p(99)&lt;1000", "1,115", "crossed"],
        ["dropped_iterations", "smoke", "count==0", "0", "held"],
    ]
    assert "All counts agree, and every threshold held." in text
    del smoke["http_req_duration{due:201}"], smoke["dropped_iterations"]
    smoke["http_req_duration"] = durations
    assert "There were no thresholds: the k6 scripts have none." in render_page(result, {})


def test_two_results_are_compared(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = read(report / "result.json")
    other["openloop"]["latency"]["p99"] *= 2
    (tmp_path / "b.json").write_text(json.dumps(other))
    assert main(["compare", str(report / "result.json"), str(tmp_path / "b.json")]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["p99 ms"].endswith("2.00")
    assert lines["p50 ms"].endswith("1.00")


def test_a_file_that_is_no_result_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert main(["compare", str(path), str(path)]) == 2
    assert "is not a result" in capsys.readouterr().err


def test_programs_are_named_and_their_cores_counted() -> None:
    assert machine.program(b"/usr/bin/traefik\0--x\0") == "traefik"
    assert machine.program(b"python3.13\0-m\0busyapi\0api\0") == "python3.13 busyapi api"
    assert machine.cores_used({"a": 1.0}, {"a": 3.0, "b": 5.0, "c": 0.0}, 2) == {"b": 2.5, "a": 1.0}


@pytest.mark.parametrize(("text", "value"), [("250m", 0.25), ("1500n", 1.5e-6), ("2Mi", 2**21)])
def test_quantities_of_kubernetes_are_read(text: str, value: float) -> None:
    assert parse_quantity(text) == pytest.approx(value)
