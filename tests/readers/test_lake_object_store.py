"""`busyapi lake` fills a table in an object store, on a real S3 server.

`make readers` installs the server; without it the tests are skipped.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from pyarrow import fs
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from testkit.archive.builder import make_batch, recover_writer
from testkit.lake import FAILPOINTS, make_kills, read_archive_ids, run_script
from testkit.s3_server import BUCKET, S3Server

FOLDER = Path(os.environ.get("READERS", ".venv/readers"))
"""Holds the program of the server."""
WAREHOUSE = f"s3://{BUCKET}/lake"
KILLED_AT = [name for name in FAILPOINTS if name != "lake-file-closed"]
"""Only a local file has that one, where it is synced."""
KILLS = 21


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Run the server, with its settings in the environment."""
    program = FOLDER.resolve() / "versitygw"
    if not program.exists():
        pytest.skip("versitygw is not installed")
    with S3Server(program, tmp_path / "s3") as server:
        for name, value in server.settings.items():
            monkeypatch.setenv(name, value)
        yield server


def load_table(server: S3Server, catalog: str) -> Table:
    """Load the table without busyapi."""
    properties = {"type": "sql", "uri": catalog, "warehouse": WAREHOUSE, **server.properties}
    return load_catalog("busyapi", **properties).load_table("busyapi.usages")


def list_stored(server: S3Server, suffix: str) -> set[str]:
    infos = server.connect().get_file_info(fs.FileSelector(BUCKET, recursive=True))
    return {f"s3://{info.path}" for info in infos if info.path.endswith(suffix)}


def grow(root: Path, count: int) -> None:
    writer = recover_writer(root)
    writer.append([make_batch(writer.cursor + 1, count)])
    writer.close()


def run_lake(root: Path, catalog: str) -> tuple[int, list[str]]:
    """Run one turn of the command; return its exit code and the events that it logged."""
    settings = {"BUSYAPI_LAKE_WAREHOUSE": WAREHOUSE, "BUSYAPI_LAKE_CATALOG": catalog}
    result = subprocess.run(
        [sys.executable, "-m", "busyapi", "lake", "--once", "--dir", str(root)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return result.returncode, [json.loads(line)["event"] for line in result.stdout.splitlines()]


def test_killed_at_each_step_the_table_in_a_store_has_each_usage_once(
    tmp_path: Path, server: S3Server
) -> None:
    root, catalog = tmp_path / "archive", f"sqlite:///{tmp_path / 'catalog.db'}"
    place: dict[str, Any] = {"root": str(root), "warehouse": WAREHOUSE, "catalog": catalog}
    kills = make_kills(root, WAREHOUSE, 1, KILLS, KILLED_AT)
    killed = run_script([{**step, "catalog": catalog} for step in kills])
    assert killed == Counter(dict.fromkeys(KILLED_AT, KILLS // len(KILLED_AT)))
    table = load_table(server, catalog)
    archived = Counter(read_archive_ids(root))
    assert Counter(table.scan().to_arrow()["id"].to_pylist()) == archived
    stored = list_stored(server, ".parquet")
    time.sleep(2)  # a turn here deletes orphans that are two seconds old
    run_script([{**place, "processes": [{}]}])
    table = load_table(server, catalog)
    files = set(table.inspect.all_data_files()["file_path"].to_pylist())
    assert list_stored(server, ".parquet") == files < stored
    manifests = set(table.inspect.all_manifests()["path"].to_pylist())
    lists = {snapshot.manifest_list for snapshot in table.snapshots()}
    assert list_stored(server, ".avro") == manifests | lists
    assert Counter(table.scan().to_arrow()["id"].to_pylist()) == archived


def test_a_store_or_a_catalog_that_fails_delays_usages_and_other_programs_read_them(
    tmp_path: Path, server: S3Server
) -> None:
    root, database = tmp_path / "archive", tmp_path / "catalog.db"
    catalog = f"sqlite:///{database}"
    grow(root, 70)
    assert run_lake(root, catalog) == (0, ["lake_committed", "lake_swept"])
    grow(root, 70)
    server.stop()
    code, events = run_lake(root, catalog)
    assert (code, events[-1]) == (1, "lake_failed")
    server.start()
    with sqlite3.connect(database) as connection:  # after the metadata is in the store
        refuse = "begin select raise(abort, 'full'); end"
        connection.execute(f"create trigger full before update on iceberg_tables {refuse}")
    code, events = run_lake(root, catalog)
    assert (code, events[-1]) == (1, "lake_failed")
    with sqlite3.connect(database) as connection:
        connection.execute("drop trigger full")
    code, events = run_lake(root, catalog)
    assert (code, events[0]) == (0, "lake_committed")
    table = load_table(server, catalog)
    expected = [*range(1, 141)]
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == expected
    options = {
        name.replace("s3.", "aws_").replace("-", "_"): value
        for name, value in server.properties.items()
    }
    rows = pl.scan_iceberg(table, storage_options={**options, "aws_allow_http": "true"}).collect()
    assert rows["id"].sort().to_list() == expected
    usages = table.scan(row_filter="patient_id = '3'").to_arrow()
    assert len(usages) == 20
    by_duckdb = duckdb.execute("SELECT id FROM usages ORDER BY id").fetchall()
    assert by_duckdb == [(number,) for number in expected if number % 7 == 3]
