"""An API process that cannot run reports the reason in one line and exits."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from testkit.processes import Stack


@pytest.fixture
def used_port() -> Iterator[int]:
    """A port that another process uses exclusively."""
    with closing(
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    ) as server:
        yield server.getsockname()[1]


def start(stack: Stack, *role: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a process that exits by itself."""
    ports = {"PORT": "0", "BUSYAPI_METRICS_PORT": "0"}
    run = subprocess.run(
        [sys.executable, "-m", "busyapi", *(role or ["api"])],
        env={**stack.apis[0].environment, **ports, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in run.stdout + run.stderr, run
    return run


@pytest.mark.parametrize("name", ["PORT", "BUSYAPI_METRICS_PORT", "BUSYAPI_FLUSHER_PORT"])
def test_a_used_port_is_one_line_with_port_and_setting(
    contract: Stack, tmp_path: Path, used_port: int, name: str
) -> None:
    role = ["flusher", "--partition", "0"] if "FLUSHER" in name else ["api"]
    settings = {name: str(used_port), "BUSYAPI_ARCHIVE_DIR": str(tmp_path)}
    run = start(contract, *role, **settings)
    assert (run.returncode, run.stderr) == (1, "")
    (line,) = map(json.loads, run.stdout.splitlines())
    assert (line["event"], line["level"]) == ("fatal_error", "error")
    assert (line["port"], line["setting"]) == (used_port, name)
    assert line["detail"] == (
        f"port {used_port} cannot be opened: Address already in use. Set {name} to another port, or"
        " stop the program that uses this one"
    )


def test_a_setting_that_is_not_allowed_is_exit_code_2(contract: Stack) -> None:
    run = start(contract, PORT="65536")
    assert run.returncode == 2
    assert run.stderr == "busyapi: PORT must be from 0 to 65535 (TCP port)\n"


def test_another_number_of_partitions_is_refused_with_both_numbers(contract: Stack) -> None:
    urls = "http://127.0.0.1:1,http://127.0.0.1:2"
    run = start(contract, BUSYAPI_PARTITIONS="2", BUSYAPI_FLUSHER_URLS=urls)
    assert run.returncode == 1
    assert "this installation has 1 partitions, BUSYAPI_PARTITIONS says 2" in run.stdout
