"""Start processes of busyapi as forks of one process that has already imported it.

    python -m testkit.fork_server SOCKET

An import of busyapi takes half a second of CPU, and `make test` starts hundreds of processes. This
program imports busyapi once. For each request it forks a child, which continues as
`python -m busyapi` would after its imports. A child that has ended stays a zombie until the run
has asked for its exit code, so no signal of the run can reach another process of the same pid.

The kernel ends this program with the run, and the children with this program.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from busyapi import failpoints
from testkit.child_process import PDEATHSIG_COMMAND, launch

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.005


class ForkServer:
    """The client side, in the test run. It starts the program with the first child."""

    def __init__(self) -> None:
        self._environment = {**os.environ}
        self._lock = threading.Lock()  # guards the socket: a request and its reply are one step
        self._replies: Any = None
        self._requests: socket.socket | None = None
        self._program: subprocess.Popen[bytes] | None = None

    def can_start(self, environment: Mapping[str, str] | None) -> bool:
        """Return whether only settings of busyapi differ from the environment of the program.

        Python, or busyapi's import, reads the other variables before the fork.
        """
        return environment is not None and _fixed_variables(environment) == _fixed_variables(
            self._environment
        )

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> "ForkedProcess":
        """Start `busyapi` with these arguments."""
        log.touch()
        request = {
            "arguments": [*arguments],
            "environment": {**environment},
            "log": str(log),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        return ForkedProcess(self, arguments, self.ask(request))

    def close(self) -> None:
        """End the program, and with it each child."""
        if self._program:
            self._program.kill()
            self._program.wait(10)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and return its reply."""
        with self._lock:
            if self._requests is None:
                launch(self._open)
            assert self._requests
            self._requests.sendall(json.dumps(request).encode() + b"\n")
            if not (reply := self._replies.readline()):
                raise RuntimeError("the fork server has ended: see its error above")
            return json.loads(reply)

    def _open(self) -> None:
        self._requests, peer = socket.socketpair()
        self._replies = self._requests.makefile("rb")
        command = [sys.executable, "-m", "testkit.fork_server", str(peer.fileno())]
        with peer:
            self._program = subprocess.Popen(
                [*PDEATHSIG_COMMAND, str(os.getpid()), *command],
                pass_fds=[peer.fileno()],
                env=self._environment,
            )


class ForkedProcess:
    """A child of the fork server, with the methods of `subprocess.Popen` that `Child` uses."""

    def __init__(self, server: ForkServer, arguments: Sequence[str], pid: int) -> None:
        self._server = server
        self._arguments = arguments
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        if self._code is None:
            self._code = self._server.ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code.

        Raises:
            TimeoutExpired: it still runs.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired([*self._arguments], timeout)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL if it has not ended."""
        self.send_signal(signal.SIGKILL)


def _fixed_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a child cannot change. PYTEST_CURRENT_TEST differs in each test."""
    return {
        name: value
        for name, value in environment.items()
        if name == failpoints.VARIABLE
        or not (name == "PORT" or name.startswith(("BUSYAPI_", "PYTEST_")))
    }


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Answer requests. Return the request in each forked child, and None at the end of the run."""
    parent = os.getpid()
    exit_codes: dict[int, int] = {}
    for line in requests.makefile("rb"):
        request = json.loads(line)
        if "poll" in request:
            # Two threads of the run may ask for the same child: its code is read only once.
            reply = exit_codes.get(request["poll"])
            if reply is None:
                pid, status = os.waitpid(request["poll"], os.WNOHANG)
                if pid:
                    reply = exit_codes[pid] = os.waitstatus_to_exitcode(status)
        elif (reply := os.fork()) == 0:
            _set_death_signal(parent)
            return dict(request)
        else:
            exit_codes.pop(reply, None)
        requests.sendall(json.dumps(reply).encode() + b"\n")
    return None


def _set_death_signal(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died just before.
    if os.getppid() != parent:
        os._exit(1)


def apply_request(request: Mapping[str, Any]) -> None:
    """Set the environment, output, limits and arguments that a new process would have."""
    with Path(os.devnull).open("rb") as nothing, Path(request["log"]).open("ab") as log:
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source.fileno(), target)
    os.environ.clear()
    os.environ.update(request["environment"])
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["open_files"]))
    sys.argv = ["busyapi", *request["arguments"]]


def main(descriptor: str) -> int:
    """Import all of busyapi, then start processes until the run ends."""
    import busyapi.wiring.api  # noqa: PLC0415 - the run's side needs none of this
    import busyapi.wiring.flusher  # noqa: F401, PLC0415
    from busyapi import cli  # noqa: PLC0415

    with socket.socket(fileno=int(descriptor)) as requests:
        request = serve(requests)
    if request is None:
        return 0
    apply_request(request)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
