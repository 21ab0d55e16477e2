"""A reader that has seen enough, as `head` has, is no trouble for any command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.archive.builder import write_blocks

FULL = Path("/dev/full")


def run(stdout: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Without this variable output waits for the end, as it does for everybody.
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
def test_a_reader_that_is_gone_is_no_error(command: str, tmp_path: Path) -> None:
    write_blocks(tmp_path, 2)
    reads = command.startswith("archive ") and not command.endswith("--help")
    reader, writer = os.pipe()
    os.close(reader)
    done = run(writer, *command.split(), *(["--dir", str(tmp_path)] if reads else []))
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_an_error() -> None:
    with FULL.open("wb") as full:
        done = run(full.fileno(), "sizing")
    assert done.returncode != 0
    assert b"busyapi: [Errno 28] No space left on device\n" in done.stderr
