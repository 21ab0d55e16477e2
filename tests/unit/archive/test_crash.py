"""kill -9 at every failpoint, at every hit of it, and once more while recovering from that."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from busyapi import archive

WRITING = Path(archive.__file__).parent
CODE = "".join(each.read_text() for each in WRITING.glob("*.py"))
FAILPOINTS = set(re.findall(r'failpoint\("(.+?)"\)', CODE))
ON_ERROR_ONLY = {"archive-cut", "archive-overwrite"}


def lives(root: Path, failpoint: str) -> list[str]:
    """Return what the lives that end at a failpoint print."""
    script = [sys.executable, "-m", "testkit.archive.crash_cycle"]
    done = subprocess.run(
        [*script, str(root / "archive"), str(root / "acknowledged"), failpoint],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{WRITING.parents[1]}:{Path.cwd()}"},
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("failpoint", sorted(FAILPOINTS - ON_ERROR_ONLY))
def test_killed_at_a_failpoint_nothing_is_lost_or_twice(fast_path: Path, failpoint: str) -> None:
    *wrong, last = lives(fast_path, failpoint)
    assert not wrong
    assert int(last.removeprefix("killed ")) > 0, "no life came by there"


def test_a_failpoint_that_nobody_passes_kills_nobody(fast_path: Path) -> None:
    assert lives(fast_path, "nowhere") == ["killed 0"]
