"""One child process: started, waited for, started again when it dies, and stopped."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from busyapi.dev import tied
from busyapi.dev.folder import StateFolder
from busyapi.dev.program import Program
from busyapi.errors import BusyapiError

READY_SECONDS = 60.0
PATIENCE_SECONDS = 5.0
"""After this long it is said what a child waits for."""
BACKOFF_SECONDS = (0.1, 5.0)
STEADY_SECONDS = 5.0
"""A child that lived this long is started again without a long wait."""
LOG_LINES = 15

Say = Callable[[str], None]


class DidNotStart(BusyapiError):
    """A part did not start."""


class Child:
    """Runs a program. It is in a session of its own: a Ctrl-C reaches the parent alone."""

    def __init__(self, program: Program, folder: StateFolder, say: Say) -> None:
        self.program = program
        self.name = program.name
        self.restarts = 0
        self._folder = folder
        self._say = say
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, ready or not."""
        with self.program.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tied.__file__),
                *(str(int(self.program.when_orphaned)), str(os.getpid())),
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(self.program.environment),
                cwd=self.program.folder,
                pass_fds=(self._folder.children_lock,),
                start_new_session=True,
            )
        self._folder.record(self.name, self._process.pid)

    async def until_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            DidNotStart: it ended or took too long; the message has the end of its log.
        """
        began, told = monotonic(), ""
        while trouble := await self._trouble():
            waited = monotonic() - began
            if waited > READY_SECONDS:
                raise DidNotStart(self._with_log(f"is not ready after {waited:.0f} s: {trouble}"))
            if waited > PATIENCE_SECONDS and trouble != told:
                self._say(f"{self.name} is not ready: {trouble}")
                told = trouble
            await asyncio.sleep(0.05)

    async def _trouble(self) -> str:
        if self._process and self._process.returncode is not None:
            how = _how(self._process.returncode)
            raise DidNotStart(self._with_log(f"{how} before it was ready"))
        return await self.program.trouble()

    def _with_log(self, what: str) -> str:
        log = self.program.log
        return f"{self.name} {what}. The end of {log}:\n{_tail(log)}"

    async def keep(self) -> None:
        """Start it again whenever it dies, until this is cancelled."""
        backoff = BACKOFF_SECONDS[0]
        while self._process:
            began = monotonic()
            how = _how(await self._process.wait())
            if monotonic() - began > STEADY_SECONDS:
                backoff = BACKOFF_SECONDS[0]
            self.restarts += 1
            self._say(f"{self.name} {how}; it is started again. Its log: {self.program.log}")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_SECONDS[1])
            try:
                await self.start()
            except OSError as error:
                self._say(f"{self.name} cannot be started: {error.strerror}")

    async def stop(self) -> bool:
        """End it, by force when it takes too long; tell whether it ended well by itself."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        process.terminate()
        try:
            code = await asyncio.wait_for(process.wait(), self.program.stop_seconds)
        except TimeoutError:
            self._say(f"{self.name} did not end in {self.program.stop_seconds:g} s")
            process.kill()
            code = await process.wait()
        # One that had just been started ends by the signal, and had taken nothing yet.
        well = code in {0, -signal.SIGTERM}
        if not well:
            self._say(f"{self.name} {_how(code)}. Its log: {self.program.log}")
        return well

    def kill(self) -> None:
        """End it at once."""
        if self._process and self._process.returncode is None:
            self._process.kill()


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (empty)"
