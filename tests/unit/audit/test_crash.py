"""kill -9 at every hit of every failpoint loses no record that was confirmed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from busyapi import audit
from testkit.audit import read_resources, verify

CODE = "".join(path.read_text() for path in Path(audit.__file__).parent.glob("*.py"))
FAILPOINTS = set(re.findall(r'failpoint\("(.+?)"\)', CODE)) | {
    "archive-sync",
    "archive-sync-folder",
}
KILLED = -9
READS = 12
"""Reads of each process: enough for several files."""


def run_writer(root: Path, acknowledged: Path, first: int, failpoint: str) -> int:
    return subprocess.run(
        [
            *(sys.executable, "-m", "testkit.audit", root, acknowledged),
            *(str(first), str(READS)),
        ],
        check=False,
        env={
            "PYTHONPATH": f"{Path(audit.__file__).parents[2]}:{Path.cwd()}",
            **({"BUSYAPI_FAILPOINTS": failpoint} if failpoint else {}),
        },
    ).returncode


@pytest.mark.parametrize("name", sorted(FAILPOINTS - {"audit-before-unlink"}))
def test_kill_at_a_failpoint_loses_no_confirmed_record(fast_path: Path, name: str) -> None:
    root, acknowledged = fast_path / "archive", fast_path / "acknowledged"
    acknowledged.touch()
    codes = []
    for run, hit in enumerate((1, 2, 3, 5, 8)):
        codes.append(run_writer(root, acknowledged, 1 + run * READS, f"{name}=kill@{hit}"))
        if codes[-1] == KILLED and (root / "p00" / "audit").is_dir():
            assert not verify(root).problems
    assert KILLED in codes
    assert run_writer(root, acknowledged, 1 + 5 * READS, "") == 0
    confirmed = [f"usage/{line}" for line in acknowledged.read_text().split()]
    recorded = read_resources(root)
    assert not verify(root).problems
    assert [resource for resource in recorded if resource in set(confirmed)] == confirmed
    assert len(set(recorded)) == len(recorded)
