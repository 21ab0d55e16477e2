"""A `busyapi dev`, as a person starts and stops it."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

from testkit.child_process import Child, read_process_state
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

START_SECONDS = 40.0
STARTED_TEXT = "Ctrl-C stops everything"
USAGE = b'{"patientId":"zq7-100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500","medication":"A"}'


class Dev(Child):
    """A running `busyapi dev`, on ports of its own."""

    def __init__(
        self, folder: Path, *arguments: str, settings: dict[str, str] | None = None
    ) -> None:
        self.state = folder / "state"
        self.port = reserve_port()
        self.metrics_port = find_two_ports()
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            [
                *(sys.executable, "-m", "busyapi", "dev", "--port", str(self.port)),
                *("--state", str(self.state)),
                *arguments,
            ],
            # Not *.log, where nothing may be that is sent: this tells what to post.
            log=folder / "dev.out",
            environment={
                **{k: v for k, v in os.environ.items() if not k.startswith("BUSYAPI_")},
                "BUSYAPI_METRICS_PORT": str(self.metrics_port),
                "BUSYAPI_FLUSHER_PORT": str(reserve_port()),
                **(settings or {}),
            },
        )

    def start(self) -> None:
        """Start it and wait until all parts are ready."""
        self.spawn()
        self.wait_for_output(STARTED_TEXT)

    def begin(self) -> None:
        """Start it and return at once."""
        self.log.write_text("")
        self.spawn()

    def wait_for_output(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has printed a text."""
        wait_until(
            lambda: self.check_alive() and text in self.output(),
            f"{text!r} of {self}",
            seconds=seconds,
        )

    def output(self) -> str:
        """Return everything that it has printed since its last start."""
        return self.log.read_text()

    def children(self) -> dict[str, int]:
        """Return the pids of its children by name."""
        lines = (self.state / "children.lock").read_text().splitlines()
        return {name: int(pid) for name, pid in (line.split() for line in lines)}

    def post(self) -> int:
        """Post one usage, repeatedly until it is stored, and return its id."""
        return wait_until(self._post, "a usage to be stored", seconds=20)

    def _post(self) -> int:
        with suppress(OSError, HTTPException):
            answer = fetch(self.port, "/api/usages", method="POST", body=USAGE)
            if answer.status == 201:
                return int(answer.json()["id"])
        return 0

    def count(self) -> dict[str, int]:
        """Return the counts of the API."""
        found: dict[str, int] = fetch(self.port, "/api/usages/count").json()
        return found

    def verify(self) -> str:
        """Verify the archive and return the output."""
        verified = subprocess.run(
            [
                *(sys.executable, "-m", "busyapi", "archive", "verify"),
                "--dir",
                self.state / "archive",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return verified.stdout


def find_two_ports() -> int:
    """Return the first of two free ports that follow each other."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000, 2):
        with ExitStack() as stack, suppress(OSError):
            for each in (port, port + 1):
                sock = stack.enter_context(socket.socket())
                sock.bind(("", each))
            return port
    raise RuntimeError("no two free ports")


def is_process_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    return read_process_state(pid) not in {"", "Z"}


def read_start_error(dev: Dev, *arguments: str) -> str:
    """Start one that cannot start, and return its error."""
    words = [*dev.argv, *arguments]
    ended = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=60, env=dev.environment
    )
    assert ended.returncode in {1, 2}
    assert "Traceback" not in ended.stderr
    return ended.stderr
