"""One supervised process: started, watched, started again, stopped."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

from busyapi.errors import BusyapiError

READY_SECONDS = 30.0
BACKOFF_SECONDS = (0.2, 5.0)
STEADY_SECONDS = 10.0
"""A child that ran this long starts again at once when it dies."""
TAIL_LINES = 8
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class StartFailed(BusyapiError):
    """A process did not become ready."""


class Child:
    """A process of `busyapi dev`. It dies with its parent, also when that is killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        ready: Callable[[], Awaitable[bool]],
        *,
        keep: int,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = command
        self._environment = environment
        self._log = log
        self._ready = ready
        self._keep = keep
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, wait until it is ready, and watch it from then on.

        Raises:
            StartFailed: it ended, or was not ready in time; the message has the end of its log.
        """
        self._process = await self._spawn()
        until = monotonic() + READY_SECONDS
        while not await self._ready():
            if self._process.returncode is not None or monotonic() > until:
                why = "ended" if self._process.returncode is not None else "is not ready"
                raise StartFailed(f"{self.name} {why}; the end of {self._log}:\n{self._tail()}")
            await asyncio.sleep(0.05)
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def stop(self, seconds: float) -> None:
        """End the process with SIGTERM, after `seconds` with SIGKILL."""
        if self._watcher:
            self._watcher.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process at once."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        pause = BACKOFF_SECONDS[0]
        while True:
            started = monotonic()
            await process.wait()
            self.restarts += 1
            if monotonic() - started > STEADY_SECONDS:
                pause = BACKOFF_SECONDS[0]
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACKOFF_SECONDS[1])
            process = self._process = await self._spawn()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: a Ctrl-C of the terminal reaches the parent alone, which stops
                # the parts in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
                # The state folder's lock stays taken until the last child has gone.
                pass_fds=[self._keep],
            )

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])


def _die_with_parent(parent: int) -> Callable[[], None]:
    def arrange() -> None:
        # SIGKILL: nothing that was answered is only in memory, so nothing is lost by it.
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the line above

    return arrange
