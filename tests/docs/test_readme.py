"""The commands of the README and of the tutorial, on running processes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.processes import Stack
from testkit.servers import Server

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial/getting-started.md")
INSTALLS = ("make run", "python3 -m venv", ".venv/bin/pip", ".venv/bin/busyapi dev", "npx ")
"""Commands that start a stack or download something."""
CLUSTER = ("helm ", "kubectl ", "make ")


def list_commands(page: str) -> Iterator[str]:
    """Yield the indented command lines of a page that run against a started stack."""
    for line in re.findall(r"^ {4}(\S.*)$", (ROOT / page).read_text(), re.MULTILINE):
        known = ("curl ", "ab ", ".venv/bin/busyapi archive ")
        if line.startswith(known):
            yield line
        else:
            assert line.startswith((*INSTALLS, *CLUSTER, "devices ", "archive ", ".busyapi/")), line


COMMANDS = [(page, line) for page in PAGES for line in list_commands(page)]


def run_command(command: str, stack: Stack) -> str:
    """Run a command against a stack, with a thousandth of ab's requests."""
    command = command.replace("localhost:3000", f"127.0.0.1:{stack.port}")
    command = command.replace("-c 1000 -n 100000", "-c 10 -n 100").replace("[1-1000]", "[1-20]")
    command = command.replace(".venv/bin/busyapi", f"{sys.executable} -m busyapi")
    command = command.replace(".busyapi/archive", str(stack.archive))
    result = subprocess.run(
        ["/bin/bash", "-c", command.replace("curl ", "curl -sS --fail -m 20 ")],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    return result.stdout


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_command_works(page: str, command: str, running: tuple[Stack, Server]) -> None:
    del page
    stack, _ = running
    output = run_command(command, stack)
    if command.startswith("ab "):
        assert "Complete requests:      100" in output
        assert "Non-2xx" not in output
        assert "Failed requests:        0" in output
    elif "/batch" in command:
        assert len(json.loads(output)["ids"]) == 1
    elif "POST" in command:
        assert all("id" in reply for reply in map(json.loads, output.replace("}{", "}\n{").split()))
    elif "verify" in command:
        assert "no problem found" in output
    else:
        assert output


def test_every_kind_of_command_is_tested() -> None:
    words = {command.split()[0] for _, command in COMMANDS}
    assert words == {"curl", "ab", ".venv/bin/busyapi"}
