"""What the metrics of `busyapi lake` say about the table, whatever its process is doing."""

import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from busyapi.lake.loop import LakeLoop, LoopConfig
from busyapi.lake.progress import ProgressReader
from busyapi.lake.taker import Taker
from busyapi.telemetry.lake_metrics import PartitionProgress
from testkit.archive.builder import find_segments
from testkit.lake import grow, open_lake

CONFIG = LoopConfig(1.0, timedelta(hours=1), tidies=False)


class Lake:
    """A loop that is not run by itself, and the reader of its progress."""

    def __init__(self, root: Path, warehouse: Path) -> None:
        table = open_lake(warehouse)
        taker = Taker(table, root, None)
        self.loop = LakeLoop(table, taker, CONFIG)
        self._reader = ProgressReader(root, None, taker, self.loop.turns)

    def read(self) -> list[PartitionProgress]:
        """Return the progress, of the archive as it is now."""
        self._reader._next_listing = 0.0
        return [*self._reader.read().partitions]


@pytest.fixture
def place(fast_path: Path) -> tuple[Path, Path]:
    """Return the folders of an archive with two partitions, and of a warehouse."""
    root = fast_path / "archive"
    for partition in (0, 1):
        grow(root, partition, [0], 5)
    return root, fast_path / "lake"


def age(root: Path, seconds: float) -> None:
    """Make the newest segment of partition 0 older."""
    moment = time.time() - seconds
    os.utime(find_segments(root / "p00")[-1], (moment, moment))


def test_a_lag_grows_from_the_end_of_the_oldest_segment_that_the_table_lacks(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    lake = Lake(root, warehouse)
    before = lake.read()[0]
    unknown = (before.lag_seconds, before.behind_usages, before.missing_usages)
    assert (unknown, before.succeeded_at) == ((None, None, None), 0)
    assert lake.loop.run_safely()
    idle = lake.read()[0]
    assert (idle.lag_seconds, idle.behind_usages, idle.problems) == (0, 0, 0)
    assert time.time() - idle.succeeded_at < 60
    grow(root, 0, [1], 5)
    age(root, 500)
    grow(root, 0, [1], 5)
    first, other = lake.read()
    assert first.lag_seconds == pytest.approx(500, abs=20)
    assert (first.behind_usages, other.lag_seconds) == (10, 0)
    (root / "p00").rename(root / "away")
    assert lake.read()[0].lag_seconds == pytest.approx(500, abs=20)
    (root / "away").rename(root / "p00")
    assert lake.loop.run_safely()
    assert lake.read()[0].lag_seconds == 0


def test_a_partition_with_a_problem_had_no_good_turn_and_lags_while_the_others_do_not(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    lake = Lake(root, warehouse)
    lake.loop.run_safely()
    good_at = lake.read()[0].succeeded_at
    for _ in range(2):
        grow(root, 0, [1], 5)
        grow(root, 1, [1], 5)
    find_segments(root / "p00")[1].unlink()
    for _ in range(2):
        assert not lake.loop.run_safely()
    first, other = lake.read()
    assert (first.problems, first.succeeded_at) == (1, good_at)
    assert first.lag_seconds
    assert (other.problems, other.lag_seconds) == (0, 0)
    assert other.succeeded_at > good_at


def test_a_port_that_is_taken_ends_the_process_and_names_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        settings = {"BUSYAPI_HOST": "127.0.0.1", "BUSYAPI_LAKE_METRICS_PORT": port}
        done = subprocess.run(
            [sys.executable, "-m", "busyapi", "lake", "--dir", str(tmp_path)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "Set BUSYAPI_LAKE_METRICS_PORT to another port" in done.stdout + done.stderr
