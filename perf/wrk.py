"""wrk: its command line, and its output.

wrk is a closed loop: a connection sends its next request when it has the answer to the last. So
it measures the maximum rate, and the latencies at that rate with every connection busy.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perf.load import Load
from testkit.child_process import Child

THREADS = 2
REQUEST_TIMEOUT_SECONDS = 30
"""wrk counts a slower answer as a timeout, and still waits for it."""
GRACE_SECONDS = 60.0
"""Time that wrk may run longer than asked, on a busy machine."""


class WrkMissing(Exception):
    """wrk is not installed: apt-get install wrk."""

    def __str__(self) -> str:
        return str(self.__doc__)


class WrkFailed(Exception):
    """wrk failed, or its output has no result."""


@dataclass(frozen=True)
class Result:
    """The counts of one run."""

    requests: int
    """Answers with any status."""
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    not_2xx: int
    """Answers with a status of 400 and more. wrk does not distinguish them."""
    socket_errors: int
    """Errors of connect, read and write."""
    timeouts: int

    @property
    def accepted(self) -> int:
        """Return the answers without an error."""
        return self.requests - self.not_2xx

    @property
    def accepted_per_second(self) -> float:
        """Return the rate of answers without an error."""
        return self.requests_per_second * self.accepted / max(self.requests, 1)


def find() -> str:
    """Return the path of wrk.

    Raises:
        WrkMissing: It is not on PATH.
    """
    path = shutil.which("wrk")
    if path is None:
        raise WrkMissing
    return path


def version() -> str:
    """Return wrk's version. wrk exits with 1 after it prints it."""
    run = subprocess.run([find(), "-v"], capture_output=True, text=True, timeout=10, check=False)
    return (run.stdout + run.stderr).partition(" [")[0].removeprefix("wrk").strip()


def command(load: Load, script: Path, origin: str, seconds: int, connections: int) -> list[str]:
    """Return the command line of one run."""
    return [
        "wrk",
        f"-t{THREADS}",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        f"--timeout={REQUEST_TIMEOUT_SECONDS}s",
        f"--script={script}",
        f"{origin}{load.path}",
    ]


def run(argv: list[str], log: Path, seconds: int) -> Result:
    """Run wrk to its end.

    Raises:
        WrkFailed: It did not end in time, or it failed.
    """
    log.unlink(missing_ok=True)
    with Child(argv, log=log) as child:
        try:
            code = child.wait(seconds + GRACE_SECONDS)
        except TimeoutError as error:
            raise WrkFailed(str(error)) from None
    text = log.read_text(errors="replace")
    if code != 0:
        raise WrkFailed(f"wrk ended with {code}:\n{text}")
    return parse(text)


_TO_MS = {"us": 0.001, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
_PERCENTILE = r"^\s+{}%\s+([\d.]+)(us|ms|s|m|h)\s*$"
_REQUESTS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_NOT_2XX = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)$", re.MULTILINE)
_SOCKET = re.compile(
    r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$", re.MULTILINE
)


def parse(text: str) -> Result:
    """Read the output of wrk with --latency.

    Raises:
        WrkFailed: A line is missing. The message has the whole output.
    """
    requests, rate = _REQUESTS.search(text), _RATE.search(text)
    p50, p99 = (_percentile(text, entry) for entry in (50, 99))
    if not requests or not rate or p50 is None or p99 is None:
        raise WrkFailed(f"wrk printed no result:\n{text}")
    # wrk prints these two lines only if the numbers are not 0.
    not_2xx, sockets = _NOT_2XX.search(text), _SOCKET.search(text)
    connect, read, write, timeouts = (
        int(entry) for entry in (sockets.groups() if sockets else "0000")
    )
    return Result(
        requests=int(requests[1]),
        requests_per_second=float(rate[1]),
        p50_ms=p50,
        p99_ms=p99,
        not_2xx=int(not_2xx[1]) if not_2xx else 0,
        socket_errors=connect + read + write,
        timeouts=timeouts,
    )


def _percentile(text: str, percent: int) -> float | None:
    match = re.search(_PERCENTILE.format(percent), text, re.MULTILINE)
    return round(float(match[1]) * _TO_MS[match[2]], 3) if match else None
