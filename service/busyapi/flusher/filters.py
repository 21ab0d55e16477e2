"""Has filters of patients made for the segments that a list had to read for lack of one.

A flusher that made them when it finishes a segment would need a sixth more CPU, also where no
client lists usages. So a process of its own makes them, with the lowest priority, when a page has
read a segment without one: one process at a time, which ends when each segment has its filter.
"""

import asyncio
import json
from asyncio.subprocess import Process
from collections import Counter
from contextlib import suppress
from pathlib import Path

import structlog

from busyapi.flusher.priority import start_worker

log = structlog.get_logger()

_WORKER = "busyapi.archive_cli.filter_worker"
INTERVAL_SECONDS = 60.0
"""From the end of a process to the start of the next one."""
MAX_TRIES = 3
"""How often a process may die at a segment before it is left, as one that takes all memory."""
MAX_LOGGED = 20
"""Segments without a filter that are logged: a disk that fails must not fill the log."""
NICENESS = 19
END_SECONDS = 2.0
"""How long to wait for a process that was killed: it continues while its disk does not answer."""


class FilterMaker:
    """Makes the filters of one partition, when asked to."""

    def __init__(self, archive_dir: Path, partition: int) -> None:
        self._arguments = (str(archive_dir), str(partition))
        self._task: asyncio.Task[None] | None = None
        self._reading: str | None = None
        """The path of the segment that the process reads."""
        self._next_start = 0.0
        """A time of the loop."""
        self._done: set[str] = set()
        """The segments that have a filter: to read all of these again for each new segment would
        take minutes in a large archive."""
        self._left: set[str] = set()
        """The segments that get no filter, until this flusher ends."""
        self._deaths: Counter[str] = Counter()

    def start(self) -> None:
        """Start a process, unless one runs or has just ended."""
        loop = asyncio.get_running_loop()
        is_running = self._task and not self._task.done()
        if not is_running and loop.time() >= self._next_start:
            self._task = loop.create_task(self._run())

    async def close(self) -> None:
        """End the process; no other one starts."""
        self._next_start = float("inf")
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._run_process()
        except OSError as error:
            log.warning("filter_not_made", detail=f"no process: {error}")
        loop = asyncio.get_running_loop()
        self._next_start = max(self._next_start, loop.time() + INTERVAL_SECONDS)

    async def _run_process(self) -> None:
        process = await start_worker(_WORKER, *self._arguments, niceness=NICENESS)
        try:
            await self._follow(process)
        finally:
            if process.returncode is None:
                process.kill()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), END_SECONDS)

    async def _follow(self, process: Process) -> None:
        assert process.stdin  # noqa: S101 - both are pipes
        assert process.stdout  # noqa: S101
        # It stays open: the process ends when this one does.
        process.stdin.write(json.dumps(sorted(self._done | self._left)).encode() + b"\n")
        self._reading = None
        async for line in process.stdout:
            if not line.endswith(b"\n"):  # it died while it wrote the line
                break
            report = json.loads(line)
            self._reading = report["path"]
            if report.get("done"):
                self._done.add(report["path"])
            if error := report.get("error"):
                self._leave(report["path"], error)
        if code := await process.wait():
            self._note_death(f"the process ended with {code}")

    def _note_death(self, why: str) -> None:
        """Note at which segment the process died. It may have been killed for another reason."""
        if (path := self._reading) is None:
            log.warning("filter_not_made", detail=why)
            return
        self._deaths[path] += 1
        if self._deaths[path] >= MAX_TRIES:
            self._leave(path, f"{path}: {why}")

    def _leave(self, path: str, why: str) -> None:
        self._left.add(path)
        if len(self._left) <= MAX_LOGGED:
            log.warning("filter_not_made", detail=why)
