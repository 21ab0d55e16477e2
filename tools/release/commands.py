"""Run other programs."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools.release.errors import ReleaseError

TIMEOUT_SECONDS = 1800
"""Limit for one command. The build of an image on a slow network takes longest."""


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    strip: bool = True,
) -> str:
    """Run a command and return its output, by default without surrounding blanks.

    Raises:
        ReleaseError: the program is missing or fails.
    """
    program = str(command[0])
    if not shutil.which(program):
        raise ReleaseError(f"{program} is missing: install it")
    finished = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        umask=0o022,  # file modes end up in archives
    )
    if finished.returncode:
        reason = finished.stderr.strip() or finished.stdout.strip()
        raise ReleaseError(f"{' '.join(map(str, command))} failed:\n{reason}")
    return finished.stdout.strip() if strip else finished.stdout
