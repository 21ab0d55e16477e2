import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.child_process import read_process_state
from testkit.fork_server import ForkedProcess, ForkServer
from testkit.waiting import wait_until

FLUSHER = ("flusher", "--partition", "0")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def start(server: ForkServer, log: Path, *arguments: str, **settings: str) -> ForkedProcess:
    return server.start(arguments, {**os.environ, **settings}, log)


def test_child_has_its_arguments_output_and_exit_code(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert start(server, log, "--version").wait(20) == 0
    assert start(server, log, "flusher").wait(20) == 2
    before, version, *usage = log.read_text().splitlines()
    assert before == "before"
    assert version.startswith("busyapi ")
    assert "required: --partition" in usage[-1]


def test_child_has_its_own_settings(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert start(server, log, *FLUSHER, BUSYAPI_PARTITIONS="none").wait(20) == 2
    assert "BUSYAPI_PARTITIONS" in log.read_text()
    assert "BUSYAPI_PARTITIONS" not in os.environ


def running(server: ForkServer, folder: Path) -> ForkedProcess:
    """Start a flusher that finds no Redis."""
    ports = {"BUSYAPI_FLUSHER_PORT": "0", "BUSYAPI_ARCHIVE_PORT": "0"}
    settings = {"BUSYAPI_ARCHIVE_DIR": str(folder), **ports}
    child = start(server, folder / "log", *FLUSHER, BUSYAPI_REDIS_URL="redis://[::1]:1", **settings)
    wait_until(lambda: "flusher_not_ready" in (folder / "log").read_text(), "it to run", seconds=20)
    return child


def test_signal_ends_a_child_and_its_exit_code_says_so(server: ForkServer, tmp_path: Path) -> None:
    child = running(server, tmp_path)
    assert child.poll() is None
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: read_process_state(child.pid) == "T", "it to stop")
    child.kill()
    assert child.wait(10) == -signal.SIGKILL
    assert read_process_state(child.pid) == ""
    child.kill()  # no process has its pid: nothing happens


def test_child_ends_with_the_server(tmp_path: Path) -> None:
    server = ForkServer()
    child = running(server, tmp_path)
    server.close()
    wait_until(lambda: read_process_state(child.pid) in {"", "Z"}, "the child to end")


@pytest.mark.parametrize(
    ("change", "can_start"),
    [
        ({}, True),
        ({"BUSYAPI_PARTITIONS": "4", "PORT": "1", "PYTEST_CURRENT_TEST": "x"}, True),
        ({"BUSYAPI_FAILPOINTS": "archive-sync=kill"}, False),
        ({"SANIC_USE_UVLOOP": "false"}, False),
        ({"PYTHONPATH": "mutants"}, False),
    ],
)
def test_what_is_read_before_the_fork_needs_a_new_process(
    server: ForkServer, change: dict[str, str], *, can_start: bool
) -> None:
    assert server.can_start({**os.environ, **change}) == can_start


def test_exit_code_can_be_asked_for_twice(server: ForkServer, tmp_path: Path) -> None:
    child = start(server, tmp_path / "log", "flusher")
    assert child.wait(20) == 2
    assert server.ask({"poll": child.pid}) == 2
