"""Child processes that a test can kill, pause and stop, and that never outlive the test run.

The kernel kills a child when the *thread* that started it ends (PR_SET_PDEATHSIG), so one thread
that lives as long as the run starts all of them. `setpriv` sets the signal, `sh` checks that the
run has not ended just before, and both become the program with exec: the pid stays the same, and
no Python code runs between fork and exec while other threads hold locks.
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
"""The start of a command line. The pid of the run follows, then the program's command line."""

LOG_TAIL_BYTES = 4000

T = TypeVar("T")


def launch(start: Callable[[], T]) -> T:
    """Call a function that starts a process, in the thread that lives as long as the run."""
    return _launcher.submit(start).result()


class RunningProcess(Protocol):
    """A process that was started: `subprocess.Popen`, or a class with the same methods."""

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


class ManagedResource(ABC):
    """Base of what runs within a `with` and has ended after it, even if its start failed."""

    @abstractmethod
    def start(self) -> None:
        """Start it."""

    @abstractmethod
    def close(self) -> None:
        """End it, whatever its state."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Child(ManagedResource):
    """One program, which a test can start repeatedly. All its output goes to one log file."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        self.environment = environment
        self._process: RunningProcess | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, log {self.log}>"

    def start(self) -> None:
        """Start it. A subclass also waits here until it is ready."""
        self.spawn()

    def spawn(self) -> None:
        """Start it without waiting until it is ready."""
        if self.is_running:
            raise RuntimeError(f"{self} runs already")
        self._process = self._start_process()

    def restart(self) -> None:
        """Start it again. If it still runs, stop it first."""
        if self.is_running:
            self.stop()
        self.start()

    def _start_process(self) -> RunningProcess:
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
        """Return whether it was started and has not ended."""
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
        """Wait for its end and return its exit code, or minus the signal that ended it.

        Raises:
            TimeoutError: it still runs.
        """
        try:
            return self._started().wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self} still runs after {seconds:g} s\n{self.tail()}") from None

    def stop(self, seconds: float = 20.0) -> int:
        """Send SIGTERM, even while it is paused, and return its exit code."""
        self.terminate()
        return self.wait(seconds)

    def terminate(self) -> None:
        """Send SIGTERM, even while it is paused, without waiting for its end."""
        process = self._started()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)

    def kill9(self) -> None:
        """Send SIGKILL if it still runs, and return when it has ended."""
        process = self._started()
        process.kill()
        process.wait(10)

    def pause(self) -> None:
        """Send SIGSTOP, and return when it has stopped."""
        process = self._started()
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: read_process_state(process.pid) in {"T", "Z", ""}, f"{self} to pause")

    def resume(self) -> None:
        """Continue after `pause` (SIGCONT)."""
        self._started().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, whatever its state."""
        if self.is_running:
            self.kill9()

    def tail(self) -> str:
        """Return the end of its log, for a failure's message."""
        if not self.log.exists():
            return "(no log)"
        text = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"end of {self.log}:\n{text}"

    def check_alive(self) -> bool:
        """Return True if it runs, for use while waiting until it is ready.

        Raises:
            RuntimeError: it has ended; the message has its exit code and the end of its log.
        """
        code = self._started().poll()
        if code is not None:
            raise RuntimeError(f"{self} ended with {code}\n{self.tail()}")
        return True


def environment_without_settings() -> dict[str, str]:
    """Return the environment of the run without busyapi's settings from a developer's shell."""
    return {k: v for k, v in os.environ.items() if k != "PORT" and not k.startswith("BUSYAPI_")}


def read_process_state(pid: int) -> str:
    """Return a process's state letter from proc(5): T stopped, Z zombie, "" no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
