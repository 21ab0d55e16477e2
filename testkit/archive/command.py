"""`busyapi archive …`, as a person would type it."""

import os
import subprocess
import sys
from pathlib import Path


def run_busyapi(archive: Path, *words: str) -> int:
    """Run a command on an archive; return its exit code. What it says goes to the test's output."""
    return subprocess.run(
        [sys.executable, "-m", "busyapi", *words],
        env={**os.environ, "BUSYAPI_ARCHIVE_DIR": str(archive)},
        check=False,
        timeout=120,
    ).returncode


def run_verify(archive: Path) -> int:
    """Return 0 if `busyapi archive verify` finds every seq once and every checksum right."""
    return run_busyapi(archive, "archive", "verify")
