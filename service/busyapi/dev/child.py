"""One child process: its start, its restarts, its end."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from time import monotonic

from busyapi.dev import pdeathsig
from busyapi.dev.command_text import format_path
from busyapi.dev.folder import StateFolder
from busyapi.dev.log_tail import find_last_error, format_tail
from busyapi.dev.program import Program
from busyapi.errors import BusyapiError

MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 30.0
"""The wait before a restart doubles from the first to the second."""
STABLE_SECONDS = 30.0
"""After a run of this length the wait starts from its minimum again."""
FULL_BYTES = 1 << 20
"""A volume with less free space counts as full."""
ASKED_TO_END = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}
"""A child that one of these ends has no error of its own to report."""

Say = Callable[[str], None]


class DidNotStart(BusyapiError):
    """A child did not start."""


class Child:
    """Runs a program in its own session, so that a Ctrl-C reaches only the parent."""

    def __init__(self, program: Program, folder: StateFolder, say: Say) -> None:
        self.program = program
        self.name = program.name
        self.restarts = 0
        self._folder = folder
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        """Where the log of this run begins: a restart appends to the file."""
        self._last_end = ""

    @property
    def is_started(self) -> bool:
        """Return whether it was started at least once."""
        return self._process is not None

    async def start(self) -> None:
        """Start it; it may become ready later."""
        with self.program.log.open("ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", pdeathsig.__file__),
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

    def require_running(self) -> None:
        """Check that it has not ended.

        Raises:
            DidNotStart: it has; the message has the end of its log.
        """
        if self._process and self._process.returncode is not None:
            raise self.make_start_error(
                f"{_describe(self._process.returncode)} before it was ready"
            )

    def make_start_error(self, problem: str) -> DidNotStart:
        """Return an error for a child that did not become ready."""
        log = self.program.log
        note = self._describe_full_volume()
        return DidNotStart(
            f"{self.name} {problem}. {note + ' ' if note else ''}"
            f"The end of {format_path(log)}:\n{format_tail(log)}"
        )

    async def run_forever(self) -> None:
        """Restart it whenever it ends, until this is cancelled."""
        backoff = MIN_BACKOFF_SECONDS
        while self._process:
            began = monotonic()
            code = await self._process.wait()
            if monotonic() - began > STABLE_SECONDS:
                backoff = MIN_BACKOFF_SECONDS
            self.restarts += 1
            self._report_end(code, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            try:
                await self.start()
            except OSError as error:
                self._say(f"{self.name} cannot be started: {error.strerror}")

    def _report_end(self, code: int, backoff: float) -> None:
        """Print that it ended and why; leave out a reason that was printed for the end before."""
        end, restart = _describe(code), f"restarting in {backoff:.2g} s"
        error = "" if -code in ASKED_TO_END else find_last_error(self.program.log, self._log_start)
        full = self._describe_full_volume()
        # The log is on the full volume too, so the error may be missing there.
        reason = f"{end} {full or error}"
        if reason == self._last_end and (full or error):
            self._say(f"{self.name} {end} again for the same reason; {restart}")
            return
        self._last_end = reason
        details = [error, full, f"log: {format_path(self.program.log)}"]
        lines = [f"    {detail}" for detail in details if detail]
        self._say("\n".join([f"{self.name} {end}; {restart}", *lines]))

    def _describe_full_volume(self) -> str:
        if shutil.disk_usage(self._folder.path).free >= FULL_BYTES:
            return ""
        return f"The volume of {format_path(self._folder.path)} is full: free some space."

    async def stop(self) -> bool:
        """End it, by force if it takes too long; return whether it ended cleanly by itself."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        process.terminate()
        try:
            code = await asyncio.wait_for(process.wait(), self.program.stop_seconds)
        except TimeoutError:
            self._say(f"{self.name} did not end in {self.program.stop_seconds:g} s: killing it")
            process.kill()
            code = await process.wait()
        # The signal itself ends a child that has just started: it had no work yet.
        stopped_cleanly = code in {0, -signal.SIGTERM}
        if not stopped_cleanly:
            self._say(f"{self.name} {_describe(code)}. Log: {format_path(self.program.log)}")
        return stopped_cleanly

    def kill(self) -> None:
        """End it at once."""
        if self._process and self._process.returncode is None:
            self._process.kill()


def _describe(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
