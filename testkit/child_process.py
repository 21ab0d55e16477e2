"""Child processes that a test can kill, pause and stop, and that never outlive the test run.

The kernel kills a child when the *thread* that started it ends (PR_SET_PDEATHSIG), so all of them
are started by one thread that lives as long as the run. `setpriv` sets this, `sh` sees that the
run has not ended just before, and both become the program: same pid, and no Python code between
fork and exec while other threads hold locks.
"""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self, TypeVar

from testkit.waiting import wait_until

_launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

PDEATHSIG_COMMAND = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "sh",
    "-c",
    'test "$PPID" = "$0" && exec "$@"',
)
"""The start of a command line that goes on with our pid and the program's own."""

LOG_TAIL_BYTES = 4000

T = TypeVar("T")


def launch(start: Callable[[], T]) -> T:
    """Start a process in the thread that lives as long as the run."""
    return _launcher.submit(start).result()


class RunningProcess(Protocol):
    """A process that was started: `subprocess.Popen`, or one that behaves like it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code, or raise TimeoutExpired."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal if it has not ended."""

    def kill(self) -> None:
        """Send SIGKILL if it has not ended."""


class Lifetime(ABC):
    """Something that runs within a `with`, and is gone after it even when its start failed."""

    @abstractmethod
    def start(self) -> None:
        """Start it."""

    @abstractmethod
    def close(self) -> None:
        """Whatever its state: afterwards it does not run."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Child(Lifetime):
    """One program, started as often as the test likes; all its output goes to one log file."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = [str(each) for each in argv]
        self.log = log
        self.environment = environment
        self._process: RunningProcess | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, log {self.log}>"

    def start(self) -> None:
        """Start it; those that have something to be ready for wait for it here."""
        self.spawn()

    def spawn(self) -> None:
        """Start it, ready or not."""
        if self.is_running:
            raise RuntimeError(f"{self} runs already")
        self._process = self._open()

    def restart(self) -> None:
        """Start it again, after `stop` or `kill9` or as it runs."""
        if self.is_running:
            self.stop()
        self.start()

    def _open(self) -> RunningProcess:
        return launch(self._popen)

    def _popen(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*PDEATHSIG_COMMAND, str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        return self._started().pid

    def _started(self) -> RunningProcess:
        if self._process is None:
            raise RuntimeError(f"{self} was not started")
        return self._process

    def wait(self, seconds: float) -> int:
        """Return its exit code; negative is the signal that ended it.

        Raises:
            TimeoutError: it still runs.
        """
        try:
            return self._started().wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self} still runs after {seconds:g} s\n{self.tail()}") from None

    def stop(self, seconds: float = 20.0) -> int:
        """Ask it to end (SIGTERM), also when it is paused, and return its exit code."""
        self.terminate()
        return self.wait(seconds)

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        process = self._started()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)

    def kill9(self) -> None:
        """End it with SIGKILL. When this returns it is gone; gone before is fine too."""
        process = self._started()
        process.kill()
        process.wait(10)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP); returns when it has stopped."""
        process = self._started()
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: read_process_state(process.pid) in {"T", "Z", ""}, f"{self} to pause")

    def resume(self) -> None:
        """Let a paused process go on."""
        self._started().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Whatever its state: afterwards it does not run."""
        if self.is_running:
            self.kill9()

    def tail(self) -> str:
        """The end of its log, for a failure's message."""
        if not self.log.exists():
            return "(no log)"
        text = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"end of {self.log}:\n{text}"

    def check_alive(self) -> bool:
        """Return True while it runs, for use in a wait for its readiness.

        Raises:
            RuntimeError: it has ended; the message has its exit code and the end of its log.
        """
        code = self._started().poll()
        if code is not None:
            raise RuntimeError(f"{self} ended with {code}\n{self.tail()}")
        return True


def read_process_state(pid: int) -> str:
    """Return the letter of a process's state in proc(5): T is stopped, Z has ended; "" is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
