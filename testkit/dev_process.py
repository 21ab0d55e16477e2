"""Start and stop `busyapi dev` as a developer does."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from http.client import HTTPException
from itertools import count, islice
from pathlib import Path

from testkit.api_client import BODY
from testkit.child_process import Child, environment_without_settings, read_process_state
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

START_SECONDS = 40.0
STARTED_TEXT = "Ctrl-C stops everything"


class Dev(Child):
    """A `busyapi dev` on ports of its own."""

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
            # It prints an example usage. Files *.log are searched for usages, so not *.log.
            log=folder / "dev.out",
            environment={
                **environment_without_settings(),
                "BUSYAPI_METRICS_PORT": str(self.metrics_port),
                "BUSYAPI_FLUSHER_PORT": str(reserve_port()),
                "BUSYAPI_LAKE_METRICS_PORT": str(reserve_port()),
                **(settings or {}),
            },
        )

    def start(self) -> None:
        """Start it and wait until all parts are ready."""
        self.spawn()
        self.wait_for_output(STARTED_TEXT)

    def spawn(self) -> None:
        """Start it without waiting, with an empty log."""
        self.log.write_text("")
        super().spawn()

    def wait_for_output(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until its output contains a text."""
        wait_until(
            lambda: self.check_alive() and text in self.output(),
            f"{text!r} of {self}",
            seconds=seconds,
        )

    def output(self) -> str:
        """Return its output since its last start."""
        return self.log.read_text()

    def children(self) -> dict[str, int]:
        """Return the pid of each child by name."""
        lines = (self.state / "children.lock").read_text().splitlines()
        return {name: int(pid) for name, pid in (line.split() for line in lines)}

    def post(self) -> int:
        """Post one usage, repeatedly until it is stored, and return its id."""
        return wait_until(self._post, "a usage to be stored", seconds=20)

    def _post(self) -> int:
        with suppress(OSError, HTTPException):
            answer = fetch(self.port, "/api/usages", method="POST", body=BODY)
            if answer.status == 201:
                return int(answer.json()["id"])
        return 0

    def count(self) -> dict[str, int]:
        """Return the counts of the API."""
        counts: dict[str, int] = fetch(self.port, "/api/usages/count").json()
        return counts

    def verify(self) -> str:
        """Verify the archive and return the output."""
        process = subprocess.run(
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
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout


_candidates = count()
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PAIRS_OF_A_WORKER = 500


def find_two_ports() -> int:
    """Return the first of two consecutive free ports, below those that the kernel assigns.

    Each worker has ports of its own: two that look for a free one at the same moment would find the
    same. A worker assigns a pair again only after all others.
    """
    for candidate in islice(_candidates, _PAIRS_OF_A_WORKER):
        pair = _WORKER * _PAIRS_OF_A_WORKER + candidate % _PAIRS_OF_A_WORKER
        port = 20_000 + 2 * pair % 12_000
        with ExitStack() as stack, suppress(OSError):
            for number in (port, port + 1):
                sock = stack.enter_context(socket.socket())
                sock.bind(("", number))
            return port
    raise RuntimeError("no two free ports")


def is_process_running(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    return read_process_state(pid) not in {"", "Z"}


def read_start_error(dev: Dev, *arguments: str) -> str:
    """Run a `busyapi dev` that fails to start, and return its error."""
    command = [*dev.argv, *arguments]
    process = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=dev.environment
    )
    assert process.returncode in {1, 2}
    assert "Traceback" not in process.stderr
    return process.stderr
