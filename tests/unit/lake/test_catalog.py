"""What happens to the table if its catalog is lost, old, refuses commits or loses answers."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from structlog.testing import capture_logs

from busyapi.lake import table as table_module
from busyapi.lake.loop import MAX_RETRY_SECONDS, LakeLoop, LoopConfig
from busyapi.lake.maintenance import sweep
from busyapi.lake.positions import WrongTable
from busyapi.lake.table import LakeConfig, LakeTable
from busyapi.lake.taker import Taker
from testkit.archive.builder import make_batch, recover_writer
from testkit.lake import open_lake, read_table, run_turn
from testkit.rest_catalog import run_rest_catalog

DAY = timedelta(days=1)


@pytest.fixture
def place(fast_path: Path) -> tuple[Path, Path]:
    """Return the folders of an archive and of a warehouse."""
    return fast_path / "archive", fast_path / "lake"


def grow(root: Path, *counts: int) -> None:
    writer = recover_writer(root)
    for count in counts:
        writer.append([make_batch(writer.cursor + 1, count)])
    writer.close()


def find_data(warehouse: Path) -> set[Path]:
    return {*warehouse.rglob("*.parquet")}


def register(warehouse: Path, newest: str) -> Table:
    """Do what docs/how-to/lake.md says."""
    uri = f"sqlite:///{warehouse / 'catalog.db'}"
    catalog = load_catalog("busyapi", uri=uri, warehouse=warehouse.as_uri())
    catalog.create_namespace_if_not_exists("busyapi")
    if catalog.table_exists("busyapi.usages"):
        catalog.drop_table("busyapi.usages")
    return catalog.register_table("busyapi.usages", newest)


def commit_past_backup(root: Path, warehouse: Path) -> tuple[LakeTable, Path]:
    """Commit four times; return a table that was opened meanwhile, and the catalog as it was."""
    running, backup = open_lake(warehouse), warehouse.with_name("backup")
    for number in range(4):
        grow(root, 3)
        run_turn(root, warehouse, tidies=False)
        if number == 1:
            running.load()
            shutil.copy(warehouse / "catalog.db", backup)
    return running, backup


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "restored"])
def test_behind_an_old_catalog_nothing_is_written_or_deleted_until_the_newest_table_is_registered(
    place: tuple[Path, Path], *, is_lost: bool
) -> None:
    root, warehouse = place
    catalog = warehouse / "catalog.db"
    running, backup = commit_past_backup(root, warehouse)
    newest = running.load().metadata_location
    data = find_data(warehouse)
    catalog.unlink() if is_lost else shutil.copy(backup, catalog)
    for _ in range(2):
        with pytest.raises(WrongTable, match="was the catalog lost"):
            run_turn(root, warehouse, orphan_seconds=0)
    assert find_data(warehouse) == data
    register(warehouse, newest)
    grow(root, 3)
    assert run_turn(root, warehouse, tidies=False)
    assert sorted(read_table(warehouse)["id"].to_pylist()) == [*range(1, 16)]


def test_a_process_that_runs_while_its_catalog_is_restored_sweeps_nothing(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    running, backup = commit_past_backup(root, warehouse)
    data = find_data(warehouse)
    shutil.copy(backup, warehouse / "catalog.db")
    with pytest.raises(WrongTable, match="was the catalog lost"):
        sweep(running)
    assert find_data(warehouse) == data


def test_turns_whose_commit_is_refused_become_rare_and_leave_no_files(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    grow(root, 3)
    run_turn(root, warehouse)
    data = find_data(warehouse)
    grow(root, 3)
    with sqlite3.connect(warehouse / "catalog.db") as database:
        refuse = "begin select raise(abort, 'full'); end"
        database.execute(f"create trigger full before update on iceberg_tables {refuse}")
    with pytest.raises(Exception, match="full"):
        run_turn(root, warehouse, orphan_seconds=0)
    assert find_data(warehouse) == data
    lake = open_lake(warehouse)
    config = LoopConfig(100.0, timedelta(hours=1), tidies=True)
    loop = LakeLoop(lake, Taker(lake, root, None), config)
    waits = []
    with capture_logs() as logs:
        for _ in range(4):
            waits.append(loop.wait_seconds())
            assert not loop.run_safely()
    assert waits == [100.0, 200.0, 400.0, MAX_RETRY_SECONDS]
    assert "full" not in str(logs), "an error of a library may quote a usage"
    with sqlite3.connect(warehouse / "catalog.db") as database:
        database.execute("drop trigger full")
    assert loop.run_safely()
    assert loop.wait_seconds() == 100.0
    assert sorted(read_table(warehouse)["id"].to_pylist()) == [*range(1, 7)]


def test_commits_of_unknown_outcome_take_each_usage_once(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = place
    monkeypatch.setattr(table_module, "MAX_RETRY_SECONDS", 0.01)
    with run_rest_catalog(folder) as catalog:
        lakes = [LakeTable(LakeConfig("analytics", catalog.uri, "busyapi.usages")) for _ in "ab"]
        config = LoopConfig(1, DAY, tidies=False)
        loops = [LakeLoop(lake, Taker(lake, root, None, 200), config) for lake in lakes]
        for fates, failures in ((["lost"], 1), (["503"], 1), (["409"], 0)):
            grow(root, 3)
            catalog.next_commits += fates
            results = [loops[0].run_safely() for _ in range(failures + 1)]
            assert results == [False] * failures + [True]
            assert not catalog.next_commits
        grow(root, 3, 3, 3)
        with ThreadPoolExecutor(2) as pool:
            assert [*pool.map(LakeLoop.run_safely, loops)] == [True, True]
        ids = lakes[0].load().scan().to_arrow()["id"].to_pylist()
    assert sorted(ids) == [*range(1, 19)]
