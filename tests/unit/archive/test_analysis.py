"""The questions of docs/analysis.md have the right answers, in DuckDB and in Polars.

Spark is slow to start: `tests/readers/test_analysis_spark.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from busyapi import cli
from testkit.archive.analysis import Row, answer_all, build_archive, read_queries, simplify

SQL, POLARS = read_queries("sql"), read_queries("python polars")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("analysis")


@pytest.fixture(scope="module")
def answers(root: Path) -> dict[str, list[Row]]:
    answers = answer_all(build_archive(root / "archive"))
    assert (
        cli.main(["archive", "export", "--dir", str(root / "archive"), f"{root}/usages.parquet"])
        == 0
    )
    return answers


@pytest.fixture(scope="module")
def connection(root: Path, answers: dict[str, list[Row]]) -> Iterator[Any]:
    assert answers  # then the file exists
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute(f"create view usages as from '{root}/usages.parquet'")
        yield connection


def test_there_are_ten_questions_and_all_answers_have_rows(answers: dict[str, list[Row]]) -> None:
    assert len(answers) == 10
    for queries in (SQL, POLARS, read_queries("python spark")):
        assert queries.keys() == answers.keys()
    assert all(answers.values())
    # A wrong filter must be seen: none of these is about all patients.
    for heading in ("Which patients had no usage", "Whose device", "What do devices"):
        (rows,) = (rows for name, rows in answers.items() if name.startswith(heading))
        assert 0 < len(rows) < 10


@pytest.mark.parametrize("heading", SQL)
def test_duckdb_answers(
    root: Path,
    answers: dict[str, list[Row]],
    connection: Any,
    heading: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    expected = simplify(answers[heading])
    assert simplify(connection.execute(SQL[heading]).fetchall()) == expected
    capfd.readouterr()
    words = ["archive", "sql", "--dir", str(root / "archive"), "--format", "ndjson", SQL[heading]]
    assert cli.main(words) == 0
    output, errors = capfd.readouterr()
    assert [list(json.loads(line).values()) for line in output.splitlines()] == expected
    assert errors == ""


@pytest.mark.parametrize("heading", POLARS)
def test_polars_answers(root: Path, answers: dict[str, list[Row]], heading: str) -> None:
    usages = pl.scan_parquet(root / "usages.parquet")
    frame = eval(POLARS[heading].strip(), {"pl": pl, "usages": usages})  # noqa: S307 - of our docs
    assert simplify(frame.rows()) == simplify(answers[heading])
