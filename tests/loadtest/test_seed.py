"""The seed's own tools, a few requests each; npm's `loadtest`, which npx fetches, is not tried."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import Stack

SEED = Path(__file__).parents[2] / "loadtest" / "seed"


def run(tool: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"WARMUP": "3", "REQUESTS": "300", "CONNECTIONS": "10", "DURATION": "1"}
    return subprocess.run(
        [str(SEED / tool)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **settings, **environment},
    )


@pytest.mark.parametrize("tool", ["curl", "ab", "wrk"])
def test_a_tool_agrees_with_the_archive(tool: str, stack: Stack) -> None:
    done = run(tool, URL=f"http://127.0.0.1:{stack.port}", ARCHIVE=str(stack.archive))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all counts agree" in done.stdout
    row = next(each.split() for each in done.stdout.splitlines() if each.split()[0] == tool)
    assert int(row[2].replace(",", "")) >= 300


def test_a_url_that_takes_no_usages_fails(stack: Stack) -> None:
    done = run("ab", URL=f"http://127.0.0.1:{stack.port}/nowhere")
    assert done.returncode == 2
    assert "does not take usages" in done.stderr


def test_a_tool_that_is_refused_fails(stack: Stack) -> None:
    done = run("ab", URL=f"http://127.0.0.1:{stack.port}/nowhere", WARMUP="0")
    assert done.returncode != 0


def test_a_missing_tool_is_named(stack: Stack, tmp_path: Path) -> None:
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = run("loadtest", URL=f"http://127.0.0.1:{stack.port}", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "npx is missing" in done.stderr
