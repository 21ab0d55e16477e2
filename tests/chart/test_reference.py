"""The table of values in the chart's README is the one that values.yaml makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.support import CHART, ROOT

GENERATOR = ROOT / "charts" / "values_reference.py"


def check(chart: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GENERATOR), "--check", "--chart", str(chart)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A chart to be changed."""
    return Path(shutil.copytree(CHART, tmp_path / "busyapi"))


def test_the_table_is_fresh() -> None:
    done = check(CHART)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("replicaCount: 2", "replicaCount: 3", "is stale"),
        ("# -- Fewest pods.", "# -- The fewest pods.", "is stale"),
        ("# -- API pods, when", "# API pods, when", "replicaCount has no comment"),
    ],
)
def test_a_stale_table_is_found(copy: Path, old: str, new: str, says: str) -> None:
    values = copy / "values.yaml"
    assert old in values.read_text()
    values.write_text(values.read_text().replace(old, new))
    done = check(copy)
    assert done.returncode == 1
    assert says in done.stderr


def test_a_check_writes_nothing_and_a_run_mends_the_table(copy: Path) -> None:
    readme = copy / "README.md"
    good = readme.read_text()
    readme.write_text(good.replace("| `replicaCount` |", "| `replicas` |"))
    stale = readme.read_text()
    assert stale != good
    assert check(copy).returncode == 1
    assert readme.read_text() == stale
    subprocess.run([sys.executable, str(GENERATOR), "--chart", str(copy)], check=True, timeout=30)
    assert readme.read_text() == good
