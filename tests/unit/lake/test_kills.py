"""The table has every finished usage once, whenever a process is killed, and with two processes."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.lake import FAILPOINTS, make_kills, open_lake, read_archive_ids, read_table, run_script


def find_wrong(root: Path, warehouse: Path) -> Iterator[str]:
    archived = Counter(read_archive_ids(root))
    taken = Counter(read_table(warehouse)["id"].to_pylist())
    assert archived
    yield from (f"{number} ids are missing" for number in [len(archived - taken)] if number)
    yield from (f"{number} ids are there twice" for number in [len(taken - archived)] if number)


@pytest.mark.parametrize(
    "kills", [10, pytest.param(250, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_killed_at_each_step_the_table_has_each_usage_once(fast_path: Path, kills: int) -> None:
    root, warehouse = fast_path / "archive", fast_path / "lake"
    killed = run_script(make_kills(root, warehouse, seed=1, kills=kills))
    assert killed.keys() == set(FAILPOINTS), "some were not reached"
    assert list(find_wrong(root, warehouse)) == []


def test_processes_that_commit_at_the_same_time_take_each_usage_once(fast_path: Path) -> None:
    """One for each partition, as beside flushers, and two for all of them."""
    root, warehouse = fast_path / "archive", fast_path / "lake"
    place = {"root": str(root), "warehouse": str(warehouse)}
    everything: list[dict[str, object]] = [{"only": 0}, {"only": 1}, {}, {}]
    grown = [(0, (0, 1)), (1, (0, 1))]
    step = {**place, "grow": grown, "count": 90, "processes": everything}
    run_script([{**place, "grow": grown, "count": 5, "processes": [{}]}, step])
    assert list(find_wrong(root, warehouse)) == []
    parents = Counter(one.parent_snapshot_id for one in open_lake(warehouse).load().snapshots())
    assert set(parents.values()) == {1}, "two commits follow the same snapshot"
