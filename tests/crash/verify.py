"""`busyapi archive verify`, as a person would type it."""

import os
import subprocess
import sys
from pathlib import Path


def verify(archive: Path) -> int:
    """Return its exit code; what it says goes to the test's output."""
    return subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "verify"],
        env={**os.environ, "BUSYAPI_ARCHIVE_DIR": str(archive)},
        check=False,
        timeout=120,
    ).returncode
