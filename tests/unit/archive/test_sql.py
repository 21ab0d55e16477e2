"""`busyapi archive sql`: what it reads, what it prints and what it refuses."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from busyapi import cli
from busyapi.archive_cli.export_options import COLUMNS
from busyapi.archive_cli.selection import Selection
from testkit.archive.builder import (
    abandon_writer,
    find_open_segment,
    find_segments,
    make_batch,
    recover_writer,
)

Output = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an archive: ids 1 to 20 in a finished segment, 21 to 30 in an open, torn one."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder)
    writer.append([make_batch(1, 20)])
    writer.close()
    writer = recover_writer(folder)
    writer.append([make_batch(21, 10)])
    path = find_open_segment(folder)
    complete = path.read_bytes()
    writer.append([make_batch(31, 10)])
    torn = path.read_bytes()[: len(complete) + 90]
    abandon_writer(writer)
    path.write_bytes(torn)
    (folder / "p00/highwater").unlink()
    return folder


def run(root: Path, query: str, *words: str, code: int = 0) -> None:
    assert cli.main(["archive", "sql", "--dir", str(root), *words, query]) == code


def test_view_has_the_columns_of_an_export_and_every_complete_usage(
    root: Path, capfd: Output
) -> None:
    run(root, "select * from usages order by id", "--format", "ndjson")
    output, errors = capfd.readouterr()
    rows = [json.loads(line) for line in output.splitlines()]
    assert tuple(rows[0]) == COLUMNS
    assert [row["id"] for row in rows] == list(range(1, 31))
    assert rows[9] == {
        "id": 10,
        "received_at": "2025-11-23T19:12:00.123Z",
        "device_time": "1970-01-01T00:00:00.010Z",
        "device_time_text": "10",
        "patient_id": "3",
        "medication": "Albuterol",
        "tenant": None,
        "writer": None,
        "partition": 0,
        "extra": None,
    }
    assert errors == ""


def test_options_select_and_a_usage_archived_meanwhile_is_in_no_scan(
    root: Path, capfd: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, "select count(*), min(id) from usages", "--patient", "3", "--format", "csv")
    assert capfd.readouterr().out == "count_star(),min(id)\n4,3\n"
    find_open_segment(root).write_bytes(find_open_segment(root).read_bytes()[:-90])
    scans = 0

    def archive_more() -> None:
        nonlocal scans
        scans += 1
        writer = recover_writer(root)
        writer.append([make_batch(writer.cursor + 1, 5)])
        writer.close()

    original = Selection._estimate_bytes

    def estimate(self: Any) -> int:
        archive_more()
        return original(self)

    monkeypatch.setattr(Selection, "_estimate_bytes", estimate)
    run(
        root,
        "select (select count(*) from usages) = (select max(id) from usages) as same, "
        "max(id) m from usages",
        "--format",
        "json",
    )
    assert json.loads(capfd.readouterr().out) == [{"same": True, "m": 30}]
    assert scans > 1


def test_formats(root: Path, capfd: Output, tmp_path: Path) -> None:
    query = """select * from (values (1, 'a,"b', null, [1.5, 'nan'::double]),
        (12345678901234567890123, E'\\x1b[31m\\n', date '2026-01-02', []))
        t(number, text, nothing, list)"""
    run(root, query, "--format", "csv")
    rows = list(csv.reader(io.StringIO(capfd.readouterr().out)))
    assert rows == [
        ["number", "text", "nothing", "list"],
        ["1", 'a,"b', "", "[1.5, null]"],
        ["12345678901234567890123", "\x1b[31m\n", "2026-01-02", "[]"],
    ]
    run(root, query, "--format", "json")
    assert json.loads(capfd.readouterr().out)[1]["number"] == 12345678901234567890123
    run(root, query)
    table = capfd.readouterr().out
    assert "\x1b" not in table
    assert table.splitlines()[1].split() == ["1", 'a,"b', "[1.5,", "null]"]
    run(root, "select id from usages where id < 0")
    assert capfd.readouterr().out == "id\n"
    query = "select patient_id from usages order by id desc limit 3 offset 3"
    words = ["archive", "sql", "--dir", str(root), "--format", "parquet", query]
    with (tmp_path / "x.parquet").open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "busyapi", *words], stdout=file, check=True, timeout=60
        )
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table["patient_id"].to_pylist() == ["6", "5", "4"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select * from read_csv('/etc/passwd')", "/etc/passwd"),
        ("select * from read_text('{root}/p00/partition.json')", "disabled by configuration"),
        ("select * from '/etc/passwd'", "does not exist"),
        ("copy usages to '{root}/x.csv'", "the query must be one SELECT"),
        ("attach '{root}/x.db'", "the query must be one SELECT"),
        ("set enable_external_access = true", "the query must be one SELECT"),
        ("select 1; select 2", "the query must be one SELECT"),
        ("", "the query must be one SELECT"),
        ("select * from root", "root does not exist"),
        ("select nothing from usages", '"nothing" not found'),
        ("selec", "syntax error"),
    ],
)
def test_query_that_is_not_about_usages_is_refused(
    root: Path, capfd: Output, query: str, reason: str
) -> None:
    run(root, query.format(root=root), code=2)
    output, errors = capfd.readouterr()
    assert output == ""
    assert reason in errors
    assert "Traceback" not in errors
    assert not list(root.glob("x.*"))


def test_error_in_the_middle_is_a_message_and_exit_code_1(root: Path, capfd: Output) -> None:
    for query in (
        "select error(patient_id || '-secret') from usages",
        "select (patient_id || '-secret')::int from usages",
        "select strptime(patient_id || '-secret', '%Y') from usages",
        "select id * 9e18::bigint from usages",
    ):
        run(root, query, code=1)
        errors = capfd.readouterr().err
        assert " Error. The rest of the message may quote a usage" in errors
        assert not re.search(r"secret|\d", errors)
    (path,) = find_segments(root)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\0" + content[101:])
    run(root, "select count(*) n from usages", "--format", "csv", code=1)
    output, errors = capfd.readouterr()
    assert output == "n\n10\n"
    assert "cannot be read" in errors
    assert "the answer lacks the usages that could not be read" in errors
    run(root / "nothing", "select 1", code=2)
    assert "is not a folder" in capfd.readouterr().err


@pytest.mark.parametrize("left", [0, 50, None])
def test_usages_that_the_open_segment_lost_are_missed(
    tmp_path: Path, capfd: Output, left: int | None
) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 20)])
    abandon_writer(writer)
    path = find_open_segment(tmp_path)
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    run(tmp_path, "select count(*) n from usages", "--format", "csv", code=1)
    output, errors = capfd.readouterr()
    assert output == "n\n0\n"
    assert "ids 1 to 20: in no file" in errors
    assert "the answer lacks the usages that could not be read" in errors


def test_values_that_json_lacks_are_printed_or_refused(root: Path, capfd: Output) -> None:
    run(root, "select histogram(received_at) h from usages", "--format", "json")
    assert json.loads(capfd.readouterr().out) == [{"h": [["2025-11-23T19:12:00.123Z", 30]]}]
    run(root, "select date 'infinity' d", code=1)
    assert "after the year 9999" in capfd.readouterr().err
    query = "select min(id) n, max(id) n from usages"
    run(root, query, "--format", "ndjson", code=2)
    output, errors = capfd.readouterr()
    assert output == ""
    assert "two columns have one name" in errors
    run(root, query, "--format", "csv")
    assert capfd.readouterr().out == "n,n\n1,30\n"


def test_intervals_are_printed_as_duckdb_prints_them(root: Path, capfd: Output) -> None:
    texts = [
        "0 days",
        "-1 month",
        "-14 months",
        "25 months 1 day",
        "-2 days 3 hours",
        "1 day -1 ms",
    ]
    texts += ["1.5 seconds", "-100 hours", "1 us", "-1 year 3 days"]
    select = "select i, i::varchar t, [i] l from (select unnest(TEXTS)::interval i)"
    select = select.replace("TEXTS", str(texts))
    run(root, select, "--format", "ndjson")
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(rows) == len(texts)
    for row in rows:
        assert (row["i"], row["l"]) == (row["t"], [row["t"]])
    run(root, select, "--format", "csv")
    assert "-1 year -2 months,-1 year -2 months," in capfd.readouterr().out
    run(root, select, "--format", "parquet", code=1)
    assert "cast it to VARCHAR" in capfd.readouterr().err


def test_query_is_recorded_without_its_text(root: Path) -> None:
    (root / "p00/audit").mkdir()
    run(root, "select count(*) from usages where patient_id = 'secret-7'", "--patient", "3")
    (trail,) = (root / "p00/audit").glob("*.ndjson")
    record = json.loads(trail.read_text().splitlines()[-1])
    assert record["resource"].startswith("query?sql=")
    assert "&patient=" in record["resource"]
    assert "secret" not in trail.read_text()


def test_without_duckdb_the_message_says_what_to_install(
    root: Path, capfd: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "busyapi.archive_cli.sql_engine", raising=False)
    run(root, "select 1", code=1)
    assert "pip install -e '.[sql]'" in capfd.readouterr().err
