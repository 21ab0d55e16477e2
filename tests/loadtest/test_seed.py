"""The seed's own tools, a few requests each; npm's, which npx would fetch, by what it prints."""

import os
import subprocess
from pathlib import Path

import pytest

from testkit.processes import Stack

ROOT = Path(__file__).parents[2]
SEED, DATA = ROOT / "loadtest" / "seed", ROOT / "data.json"


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
    assert int(row[2].replace(",", "")) >= (10 if tool == "wrk" else 300)


def test_a_url_that_takes_no_usages_fails(stack: Stack) -> None:
    done = run("ab", URL=f"http://127.0.0.1:{stack.port}/nowhere")
    assert done.returncode == 2
    assert "does not take usages" in done.stderr


def test_a_tool_that_is_refused_fails(stack: Stack) -> None:
    done = run("ab", URL=f"http://127.0.0.1:{stack.port}", WARMUP="0", BODY="{}")
    assert done.returncode == 1
    assert "only 0 of 300 were answered with 201" in done.stdout


@pytest.mark.parametrize("name", ["REQUESTS", "CONNECTIONS", "RATE", "DURATION"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x"])
def test_a_number_that_is_none_is_named(name: str, value: str) -> None:
    done = run("curl", **{name: value})
    assert done.returncode == 2
    assert f"{name}: {value} is no whole number above 0" in done.stderr


# What loadtest 8.2.1 prints.
PRINTED = """
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
def test_what_npms_loadtest_says_is_understood(
    posted: int, code: int, stack: Stack, tmp_path: Path
) -> None:
    npx = tmp_path / "npx"
    npx.write_text(
        "#!/bin/sh\nfor url do :; done\n"
        f'curl --silent --output /dev/null --data @{DATA} "$url?[1-{posted}]"\n'
        f"cat <<'END'\n{PRINTED.format(errors=300 - posted)}\nEND\n"
    )
    npx.chmod(0o755)
    where = {"URL": f"http://127.0.0.1:{stack.port}", "ARCHIVE": str(stack.archive)}
    done = run("loadtest", **where, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Effective rps:       668" in done.stdout
    assert "all counts agree" in done.stdout
    assert ("only 297 of 300" in done.stdout) == (code == 1)


def test_a_missing_tool_is_named(stack: Stack, tmp_path: Path) -> None:
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = run("loadtest", URL=f"http://127.0.0.1:{stack.port}", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "npx is missing" in done.stderr
