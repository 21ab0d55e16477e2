"""An API process that cannot run says why, in one line, and ends."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from testkit.processes import Stack


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens who shares it with nobody."""
    with closing(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as it:
        yield it.getsockname()[1]


def start(stack: Stack, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a process that ends by itself."""
    ports = {"PORT": "0", "BUSYAPI_METRICS_PORT": "0"}
    run = subprocess.run(
        [sys.executable, "-m", "busyapi", "api"],
        env={**stack.apis[0].environment, **ports, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in run.stdout + run.stderr, run
    return run


@pytest.mark.parametrize("name", ["PORT", "BUSYAPI_METRICS_PORT"])
def test_a_taken_port_is_named(contract: Stack, taken: int, name: str) -> None:
    run = start(contract, **{name: str(taken)})
    assert run.returncode == 1
    assert run.stderr == f"busyapi: [Errno 98] port {taken}: Address already in use\n"


def test_a_setting_that_is_not_allowed_is_exit_code_2(contract: Stack) -> None:
    run = start(contract, PORT="65536")
    assert run.returncode == 2
    assert run.stderr == "busyapi: PORT must be from 0 to 65535 (TCP port)\n"


def test_another_number_of_partitions_is_refused_and_said(contract: Stack) -> None:
    urls = "http://127.0.0.1:1,http://127.0.0.1:2"
    run = start(contract, BUSYAPI_PARTITIONS="2", BUSYAPI_FLUSHER_URLS=urls)
    assert run.returncode == 1
    assert "this installation has 1 partitions, BUSYAPI_PARTITIONS says 2" in run.stdout
