"""An output that its reader closes, as `head` does, is no error for any command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.archive.builder import write_blocks

FULL = Path("/dev/full")


def run_busyapi(stdout: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Without this variable Python buffers the output, as it does for users.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "busyapi", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    ["sizing", "--help", "archive --help", "archive ls", "archive cat"],
)
def test_a_reader_that_has_closed_is_no_error(command: str, tmp_path: Path) -> None:
    write_blocks(tmp_path, 2)
    reads = command.startswith("archive ") and not command.endswith("--help")
    reader, writer = os.pipe()
    os.close(reader)
    result = run_busyapi(writer, *command.split(), *(["--dir", str(tmp_path)] if reads else []))
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_full_disk_is_an_error() -> None:
    with FULL.open("wb") as full:
        result = run_busyapi(full.fileno(), "sizing")
    assert result.returncode != 0
    assert result.stderr == b"busyapi: /dev/full: No space left on device\n"
