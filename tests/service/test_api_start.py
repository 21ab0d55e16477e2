"""An API process that cannot run reports the reason in one line and exits."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from testkit.api_client import RawConnection, render_request
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until


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


def test_fewer_partitions_than_at_install_are_refused_with_both_numbers(
    valkey: Server, tmp_path: Path
) -> None:
    with Stack(tmp_path, valkey, partitions=2) as stack:
        run = start(stack, BUSYAPI_PARTITIONS="1", BUSYAPI_FLUSHER_URLS="http://127.0.0.1:1")
    assert run.returncode == 1
    assert "this installation was made with 2 partitions" in run.stdout
    assert "BUSYAPI_PARTITIONS says 1" in run.stdout


@contextmanager
def starting(stack: Stack, folder: Path, port: int) -> Iterator[Api]:
    """Start a process as a container does, and do not wait until it is ready."""
    api = Api(folder, f"api-{port}", port, stack.apis[0].environment)
    api.is_forked = False
    api.spawn()
    try:
        yield api
    finally:
        api.stop()


def has_started(api: Api) -> bool:
    return "api_started" in api.log.read_text()


def count_listeners(port: int) -> int:
    """Return how many sockets listen on a port."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def connect_at_once(port: int) -> RawConnection:
    """Connect as soon as the port is open."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return RawConnection(port, 30)
        except ConnectionRefusedError:
            # No pause: it would be as long as the rest of the start.
            assert time.monotonic() < deadline


def read_start_time(api: Api) -> float:
    """Return the time at which a process logged that it has started."""
    lines = map(json.loads, api.log.read_text().splitlines())
    text = next(line["time"] for line in lines if line["event"] == "api_started")
    return datetime.fromisoformat(text).timestamp()


def test_a_probe_that_comes_early_waits_and_gets_200(contract: Stack, tmp_path: Path) -> None:
    with starting(contract, tmp_path, reserve_port()) as api, connect_at_once(api.port) as kubelet:
        connected = time.time()
        kubelet.send(render_request("GET", "/readyz"))
        assert kubelet.read_answer().status == 200
        assert connected < read_start_time(api)


def test_a_process_takes_no_connection_from_another_before_it_serves(
    contract: Stack, tmp_path: Path
) -> None:
    port = contract.port
    before = count_listeners(port)
    with starting(contract, tmp_path, port) as api:
        deadline = time.monotonic() + 30
        while not has_started(api) and time.monotonic() < deadline:
            count = count_listeners(port)
            if has_started(api):
                break
            assert count == before
            assert fetch(port, "/livez").status == 200
        wait_until(lambda: count_listeners(port) == before + 1, "the second to listen")
