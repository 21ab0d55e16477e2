"""Spark reads the table of `busyapi lake` as docs/how-to/lake.md says, and deletes rows of it.

`make readers` installs Spark and Iceberg's runtime for it; without them the test is skipped.
"""

import json
import os
import re
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import compute as pc
from pyarrow import parquet

from busyapi import cli
from busyapi.lake.maintenance import expire_snapshots, sweep
from busyapi.stamp import Stamp, encode_stamp
from testkit.archive.builder import DAY_MS, join_usages, recover_writer
from testkit.lake import open_lake, run_turn

FOLDER = Path(os.environ.get("READERS", ".venv/readers"))
"""Holds the environments of Spark, and the jars."""
PAGE = Path(__file__).parents[2] / "docs/how-to/lake.md"
FIRST_MS = round(datetime(2026, 10, 31, 9, tzinfo=UTC).timestamp() * 1000)
QUERIED = date(2026, 11, 1)
"""The day and the patient of the page's query."""
PATIENT = "13"
STAMP = encode_stamp(Stamp("8nC3hQ2vXr0aLw_K", "clinic-7"))
ODD = [
    b'{"patientId":"a\xc3\xa4","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500","medication":"B"}'
    + STAMP,
    b'{"patientId":13,"timestamp":8640000000000000,"medication":"A","device":{"battery":[1,{}]}}'
    + STAMP,
    b'{"patientId":true,"timestamp":"yesterday","medication":null}',
    b'{"patientId":"13","timestamp":"2016-11-01T09:11:51.250-05:00","medication":"A"}',
    b'{"patientId":"13","timestamp":"Tue, 01 Nov 2016 14:11:51 GMT","medication":"A","note":null}',
]
PRINT = """
import json, sys

spark.sparkContext.setLogLevel("ERROR")


def collect(rows):
    # Python's datetime ends with the year 9999.
    names = [f"unix_micros({n}) AS {n}" if t == "timestamp" else f"`{n}`" for n, t in rows.dtypes]
    rows = rows.selectExpr(*names)
    answer = sorted((row.asDict() for row in rows.collect()), key=lambda row: row["id"])
    return answer, rows


everything, _ = collect(spark.table("busyapi.busyapi.usages"))
chosen, plan = collect(usages)
scan = plan._jdf.queryExecution().executedPlan().collectLeaves().head()
files = scan.metrics().apply("resultDataFiles").value()
for condition in sys.argv[1:]:
    spark.sql(f"DELETE FROM busyapi.busyapi.usages WHERE {condition}")
print(json.dumps([everything, chosen, files]))
"""


def write(root: Path, day: int, usages: list[bytes]) -> None:
    """Add a finished segment."""
    writer = recover_writer(root)
    writer.append([join_usages(writer.cursor + 1, usages, FIRST_MS + day * DAY_MS)])
    writer.close()


def make_usages(patients: range, count: int) -> list[bytes]:
    usage = b'{"patientId":%d,"timestamp":%d,"medication":"Albuterol"}'
    return [usage % (patients[n % len(patients)], FIRST_MS + n) for n in range(count)]


def fill_table(root: Path, warehouse: Path) -> None:
    """Fill a table whose files were joined, whose snapshots expired, and that grew after that."""
    for day in range(4):
        write(root, day, make_usages(range(10, 19), 120))
    write(root, 1, ODD)
    run_turn(root, warehouse, tidies=False)
    lake = open_lake(warehouse)
    before = len(lake.load().inspect.files())
    run_turn(root, warehouse)
    assert len(lake.load().inspect.files()) == 4 < before, "the files of a day were not joined"
    assert expire_snapshots(lake, datetime.now(UTC))
    assert sweep(lake, datetime.now(UTC))
    for patients in (range(10, 13), range(13, 16), range(16, 19)):
        write(root, 1, make_usages(patients, 20))
        run_turn(root, warehouse, tidies=False)
    assert len(lake.load().inspect.files()) == 7


def export(root: Path) -> list[dict[str, Any]]:
    """Return the rows of an export, with times in microseconds."""
    file = root.with_name("usages.parquet")
    assert cli.main(["archive", "export", "--dir", str(root), "--replace", str(file)]) == 0
    return to_rows(parquet.read_table(file))


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    for name in ("received_at", "device_time"):
        micros = pc.cast(pc.cast(table[name], pa.timestamp("us", tz="UTC")), pa.int64())
        table = table.set_column(table.schema.get_field_index(name), name, micros)
    rows: list[dict[str, Any]] = table.sort_by("id").to_pylist()
    return rows


def day_of(row: dict[str, Any]) -> date:
    return datetime.fromtimestamp(row["received_at"] / 1e6, UTC).date()


def run_spark(python: Path, warehouse: Path, jars: list[Path], *deleted: str) -> Any:
    """Run the page's code, then delete rows.

    Return all rows, those of the query, and how many files the query read.
    """
    match = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert match
    assert PATIENT in match[1]
    assert str(QUERIED) in match[1]
    code = match[1].replace("/srv/lake", str(warehouse)) + PRINT
    options = ["--master", "local[1]", "--conf", "spark.ui.enabled=false"]
    options += ["--jars", ",".join(map(str, jars)), "pyspark-shell"]
    result = subprocess.run(
        [str(python), "-c", code, *deleted],
        env={**os.environ, "PYSPARK_SUBMIT_ARGS": " ".join(options)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("spark-3.5", "iceberg-spark-runtime-3.5_2.12"),
        ("spark-4.1", "iceberg-spark-runtime-4.1_2.13"),
    ],
)
def test_spark_reads_the_table_and_what_it_deletes_stays_deleted(
    tmp_path: Path, name: str, runtime: str
) -> None:
    python = FOLDER.resolve() / name / "bin/python"
    jars = [FOLDER.resolve() / f"{jar}.jar" for jar in (runtime, "sqlite-jdbc")]
    for file in (python, *jars):
        if not file.exists():
            pytest.skip(f"{file.name} of {name} is not installed")
    root, warehouse = tmp_path / "archive", tmp_path / "lake"
    fill_table(root, warehouse)
    expected = export(root)
    conditions = f"patient_id = '{PATIENT}'", f"received_at < '{QUERIED}'"
    everything, chosen, files = run_spark(python, warehouse, jars, *conditions)
    assert everything == expected
    assert chosen == [
        row for row in expected if row["patient_id"] == PATIENT and day_of(row) == QUERIED
    ]
    assert 8_640_000_000_000_000_000 in {row["device_time"] for row in chosen}
    assert files == 2, "not only those files of the day whose bounds have the patient"
    write(root, 1, make_usages(range(13, 14), 5))
    assert run_turn(root, warehouse, orphan_seconds=0)
    kept = [row for row in expected if row["patient_id"] != PATIENT and day_of(row) >= QUERIED]
    kept += [row for row in export(root) if row["id"] > len(expected)]
    assert to_rows(open_lake(warehouse).load().scan().to_arrow()) == kept
    everything, _, _ = run_spark(python, warehouse, jars)
    assert everything == kept
