"""The scripts for other tools send a few requests. One prints what npm's loadtest would print."""

import os
import subprocess
from pathlib import Path

import pytest

from testkit.processes import Stack

ROOT = Path(__file__).parents[2]
SCRIPTS, DATA = ROOT / "loadtest" / "scripts", ROOT / "data.json"


def run(tool: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"WARMUP": "3", "REQUESTS": "300", "CONNECTIONS": "10", "DURATION": "1"}
    return subprocess.run(
        [str(SCRIPTS / tool)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **settings, **environment},
    )


@pytest.mark.parametrize("tool", ["curl", "ab", "wrk"])
def test_a_tool_agrees_with_the_archive(tool: str, stack: Stack) -> None:
    process = run(tool, URL=f"http://127.0.0.1:{stack.port}", ARCHIVE=str(stack.archive))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "all counts agree" in process.stdout
    row = next(line.split() for line in process.stdout.splitlines() if line.split()[0] == tool)
    assert int(row[2].replace(",", "")) >= (10 if tool == "wrk" else 300)


def test_a_url_that_takes_no_usages_fails(stack: Stack) -> None:
    process = run("ab", URL=f"http://127.0.0.1:{stack.port}/nowhere")
    assert process.returncode == 2
    assert "does not accept usages" in process.stderr


def test_a_tool_that_is_refused_fails(stack: Stack) -> None:
    process = run("ab", URL=f"http://127.0.0.1:{stack.port}", WARMUP="0", BODY="{}")
    assert process.returncode == 1
    assert "only 0 of 300 were answered with 201" in process.stdout


@pytest.mark.parametrize("name", ["REQUESTS", "CONNECTIONS", "RATE", "DURATION"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x"])
def test_an_invalid_number_is_named(name: str, value: str) -> None:
    process = run("curl", **{name: value})
    assert process.returncode == 2
    assert f"{name}: {value} is not a whole number above 0" in process.stderr


# The output of loadtest 8.2.1.
OUTPUT = """
Target URL:          http://localhost:3000/api/usages
Max requests:        300
Target rps:          2000
Concurrent clients:  413
Running on cores:    3
Agent:               none

Completed requests:  300
Total errors:        {errors}
Total time:          2.994 s
Mean latency:        127.5 ms
Effective rps:       668

Percentage of requests served within a certain time
  50%      121 ms
 100%      366 ms (longest request)

   -1:   {errors} errors
"""


@pytest.mark.parametrize(("posted", "code"), [(300, 0), (297, 1)])
def test_the_output_of_npms_loadtest_is_understood(
    posted: int, code: int, stack: Stack, tmp_path: Path
) -> None:
    npx = tmp_path / "npx"
    npx.write_text(
        "#!/bin/sh\nfor url do :; done\n"
        f'curl --silent --output /dev/null --data @{DATA} "$url?[1-{posted}]"\n'
        f"cat <<'END'\n{OUTPUT.format(errors=300 - posted)}\nEND\n"
    )
    npx.chmod(0o755)
    target = {"URL": f"http://127.0.0.1:{stack.port}", "ARCHIVE": str(stack.archive)}
    process = run("loadtest", **target, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert process.returncode == code, process.stdout + process.stderr
    assert "Effective rps:       668" in process.stdout
    assert "all counts agree" in process.stdout
    assert ("only 297 of 300" in process.stdout) == (code == 1)


def test_a_missing_tool_is_named(stack: Stack, tmp_path: Path) -> None:
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    process = run("loadtest", URL=f"http://127.0.0.1:{stack.port}", PATH=str(tmp_path))
    assert process.returncode == 2
    assert "npx is missing" in process.stderr
