"""Reads pages of the archive in a process of its own, one at a time.

A query reads for a while. In this process it would hold up flushes and probes; there it has a
lower priority, and the kernel ends it first if memory is short. The process starts with the first
query and ends some time after the last one.
"""

import asyncio
import json
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from busyapi.flusher.filters import FilterMaker
from busyapi.flusher.priority import start_worker

_WORKER = "busyapi.archive_cli.page_worker"
MAX_USAGES = 1000
MAX_BYTES = 1 << 20
SCAN_SECONDS = 0.15
"""After this time a page ends with what was found."""
MAX_SECONDS = 2.0
"""After this time the process is ended: one block cannot take that long."""
START_SECONDS = 60.0
"""After this time a process that has not started is ended. Until then queries fail while it starts:
on a busy node, ending it with the first query would mean that it never starts."""
WAIT_SECONDS = 0.7
"""How long a query waits for those before it: all that may wait are served, if nothing else needs
the CPU. All fits into the timeout of an API process."""
MAX_WAITING = 4
IDLE_SECONDS = 300.0
NICENESS = 10
"""A tenth of the CPU of a flusher that needs all of it."""


class PagesBusy(Exception):
    """Other queries are under way."""


class PageFailed(Exception):
    """The page cannot be read. The message says why, without a value of the query."""


class PageReader:
    """The process that reads the pages of one partition."""

    def __init__(self, archive_dir: Path, partition: int) -> None:
        self._arguments = (str(archive_dir), str(partition))
        # Held while the process reads a page: its answers come in the order of the requests.
        self._turn = asyncio.Lock()
        self._filters = FilterMaker(archive_dir, partition)
        self._waiting = 0
        self._process: Process | None = None
        self._starts_until: float | None = None
        """When to give up the process, if it has not started yet: a time of the loop."""
        self._ending: Process | None = None
        """The last process that was killed. It continues while the kernel waits for its disk."""
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, request: dict[str, Any]) -> bytes:
        """Return the answer of the worker.

        Raises:
            PagesBusy: others are before this query.
            PageFailed: there is no answer.
        """
        await self._wait_for_turn()
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await self._exchange(request)
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            if not (isinstance(error, TimeoutError) and self._is_starting()):
                self._end_process()
            raise PageFailed(type(error).__name__) from None
        except asyncio.CancelledError:
            if not self._is_starting():
                self._end_process()  # otherwise the next query would get this answer
            raise
        finally:
            self._end_when_idle()
            self._turn.release()

    async def close(self) -> None:
        """End the processes, and wait until they have ended, if they can end."""
        self._end_process()
        await self._filters.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_SECONDS):
                await self._wait_for_end()

    def _is_starting(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._starts_until is not None and now < self._starts_until

    def _end_process(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._process and self._process.returncode is None:
            self._process.kill()
            self._ending = self._process
        self._process = self._starts_until = None

    def _end_when_idle(self) -> None:
        if self._process:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_SECONDS, self._end_process)

    async def _wait_for_end(self) -> None:
        if self._ending:
            await self._ending.wait()
            self._ending = None

    async def _wait_for_turn(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise PagesBusy
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise PagesBusy from None
        finally:
            self._waiting -= 1

    async def _exchange(self, request: dict[str, Any]) -> bytes:
        if self._idle:
            self._idle.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            await self._wait_for_end()  # on a disk that hangs, each query would leave one behind
            process = self._process = await self._start()
        assert process.stdin  # noqa: S101 - both are pipes
        assert process.stdout  # noqa: S101
        if self._starts_until is not None:
            if not await process.stdout.readline():
                raise EOFError
            self._starts_until = None
        process.stdin.write(json.dumps(request | {"seconds": SCAN_SECONDS}).encode() + b"\n")
        await process.stdin.drain()
        head = await process.stdout.readline()
        answer = json.loads(head)
        if error := answer.get("error"):
            raise PageFailed(error)
        if answer["lacks_filter"]:
            self._filters.start()
        return head + await process.stdout.readexactly(answer["bytes"])

    async def _start(self) -> Process:
        process = await start_worker(_WORKER, *self._arguments, niceness=NICENESS)
        self._starts_until = asyncio.get_running_loop().time() + START_SECONDS
        return process
