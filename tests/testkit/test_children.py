import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from testkit.child_process import Child, ManagedResource, read_process_state
from testkit.ports import reserve_port
from testkit.waiting import wait_until


def python(tmp_path: Path, code: str) -> Child:
    return Child([sys.executable, "-u", "-c", code], log=tmp_path / "child.log")


def test_output_and_exit_code_are_kept(tmp_path: Path) -> None:
    with python(tmp_path, "print('said'); raise SystemExit(3)") as child:
        assert child.wait(10) == 3
    assert "said" in child.tail()


def test_readiness_wait_of_a_child_that_ended_names_its_code_and_log(tmp_path: Path) -> None:
    with python(tmp_path, "raise SystemExit('no such setting')") as child:
        child.wait(10)
        with pytest.raises(RuntimeError, match=r"ended with 1(.|\n)*no such setting"):
            child.check_alive()


def test_stop_gives_the_exit_code_also_of_a_paused_child(tmp_path: Path) -> None:
    with Child(["sleep", "60"], log=tmp_path / "log") as child:
        child.pause()
        assert child.stop() == -signal.SIGTERM
        assert not child.is_running


def test_stop_of_a_child_that_ignores_it_ends_in_time(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(60)"
    with python(tmp_path, code) as child:
        wait_until(lambda: "deaf" in child.tail(), "the child to ignore SIGTERM")
        with pytest.raises(TimeoutError, match="still runs"):
            child.stop(0.2)
    assert not child.is_running


def test_paused_child_does_not_run_until_resumed(tmp_path: Path) -> None:
    code = "import time\nwhile True: print('x'); time.sleep(0.005)"
    with python(tmp_path, code) as child:
        wait_until(lambda: "x" in child.tail(), "output")
        child.pause()
        size = child.log.stat().st_size
        time.sleep(0.1)
        assert child.log.stat().st_size == size
        child.resume()
        wait_until(lambda: child.log.stat().st_size > size, "more output")


def test_restart_is_another_process_with_the_same_log(tmp_path: Path) -> None:
    with Child(["sleep", "60"], log=tmp_path / "log") as child:
        first = child.pid
        child.kill9()
        child.restart()
        assert child.pid != first
        child.restart()
        assert child.is_running


def test_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    child = Child(["sleep", "60"], log=tmp_path / "log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert child.is_running
    child.close()


def test_child_dies_with_the_test_run_however_that_ends() -> None:
    code = (
        "import os, pathlib; from testkit.child_process import Child\n"
        "child = Child(['sleep', '60'], log=pathlib.Path(os.devnull)); child.start()\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert run.returncode == -signal.SIGKILL
    wait_until(
        lambda: read_process_state(int(run.stdout)) in {"Z", ""}, "the child to be gone", seconds=5
    )


def test_a_lifetime_that_fails_to_start_is_closed() -> None:
    class Halfway(ManagedResource):
        closed = False

        def start(self) -> None:
            raise OSError("halfway")

        def close(self) -> None:
            self.closed = True

    halfway = Halfway()
    with pytest.raises(OSError, match="halfway"), halfway:
        pass
    assert halfway.closed


def test_wait_names_what_it_waited_for() -> None:
    with pytest.raises(TimeoutError, match=r"after 0\.05 s still waiting for rain"):
        wait_until(lambda: False, "rain", seconds=0.05)


def test_reserved_port_is_given_to_no_other_process_while_its_server_is_down() -> None:
    port = reserve_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.socket() as taker, pytest.raises(OSError, match="in use"):
        taker.bind(("127.0.0.1", port))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        socket.create_connection(("127.0.0.1", port)).close()
