"""Run `busyapi archive …` as an operator does."""

import os
import subprocess
import sys
from pathlib import Path


def run_busyapi(archive: Path, *words: str) -> int:
    """Run a command on an archive, and return its exit code. Its output is the test's output."""
    return subprocess.run(
        [sys.executable, "-m", "busyapi", *words],
        env={**os.environ, "BUSYAPI_ARCHIVE_DIR": str(archive)},
        check=False,
        timeout=120,
    ).returncode


def run_verify(archive: Path) -> int:
    """Run `busyapi archive verify`. Return 0 if every seq is there once and checksums match."""
    return run_busyapi(archive, "archive", "verify")
