"""kill -9 at every hit of every failpoint, and again during the recovery from it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from busyapi import archive

ARCHIVE_CODE = Path(archive.__file__).parent
CODE = "".join(path.read_text() for path in ARCHIVE_CODE.glob("*.py"))
FAILPOINTS = set(re.findall(r'failpoint\("(.+?)"\)', CODE))
ON_ERROR_ONLY = {"archive-cut", "archive-overwrite"}
IN_CONVERSION = {"archive-convert-copied"}
"""test_convert.py kills there."""
OF_FORMAT = {
    1: {"archive-after-footer"},
    2: {
        "archive-after-index",
        "archive-write-index",
        "archive-write-open-index",
        "archive-recover-hide",
    },
}
"""Failpoints in the code of one format only."""


def run_crash_cycle(root: Path, failpoint: str, archive_format: int) -> list[str]:
    """Run processes that die at a failpoint, and return what they print."""
    script = [sys.executable, "-m", "testkit.archive.crash_cycle"]
    result = subprocess.run(
        [
            *script,
            str(root / "archive"),
            str(root / "acknowledged"),
            failpoint,
            str(archive_format),
        ],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ARCHIVE_CODE.parents[1]}:{Path.cwd()}"},
    )
    return result.stdout.splitlines()


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("failpoint", sorted(FAILPOINTS - ON_ERROR_ONLY - IN_CONVERSION))
def test_a_kill_at_a_failpoint_loses_and_repeats_nothing(
    fast_path: Path, failpoint: str, archive_format: int
) -> None:
    if failpoint in OF_FORMAT[3 - archive_format]:
        pytest.skip(f"format {archive_format} has no such step")
    *problems, last = run_crash_cycle(fast_path, failpoint, archive_format)
    assert not problems
    assert int(last.removeprefix("killed ")) > 0, "no process reached the failpoint"


def test_an_unknown_failpoint_kills_no_process(fast_path: Path) -> None:
    assert run_crash_cycle(fast_path, "nowhere", 2) == ["killed 0"]
