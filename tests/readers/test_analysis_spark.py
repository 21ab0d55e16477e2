"""The questions of docs/analysis.md have the right answers in Spark.

`make readers` installs Spark and runs it; where it is not installed, the test is skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from busyapi import cli
from testkit.archive.analysis import answer_all, build_archive, read_queries, simplify

FOLDER = Path(os.environ.get("READERS", ".venv/readers"))
"""Holds the environments `spark-3.5` and `spark-4`."""
PROGRAM = """
import json, sys
from datetime import date, datetime
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
spark.conf.set("spark.sql.session.timeZone", "UTC")
spark.conf.set("spark.sql.shuffle.partitions", "1")  # 200 take minutes on two cores
spark.read.parquet("usages.parquet").createOrReplaceTempView("usages")

def simplify(value):
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    return str(value) if isinstance(value, date) else value

rows = {}
for heading, query in json.load(sys.stdin).items():
    answer = eval(query.strip(), {"spark": spark})
    rows[heading] = [[simplify(value) for value in row] for row in answer.collect()]
print(json.dumps(rows))
"""


@pytest.mark.parametrize("name", ["spark-3.5", "spark-4"])
def test_spark_answers(tmp_path: Path, name: str) -> None:
    python = FOLDER.resolve() / name / "bin/python"
    if not python.exists():
        pytest.skip(f"{name} is not installed")
    answers = answer_all(build_archive(tmp_path / "archive"))
    words = ["archive", "export", "--dir", str(tmp_path / "archive"), f"{tmp_path}/usages.parquet"]
    assert cli.main(words) == 0
    queries = read_queries("python spark")
    assert queries.keys() == answers.keys()
    result = subprocess.run(
        [str(python), "-c", PROGRAM],
        input=json.dumps(queries),
        cwd=tmp_path,
        env={**os.environ, "TZ": "UTC"},  # collect() gives naive local times
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = json.loads(result.stdout.splitlines()[-1])
    assert rows == {heading: simplify(answer) for heading, answer in answers.items()}
