"""Run asyncio code in a separate thread while a test blocks."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from testkit.child_process import ManagedResource

CALL_SECONDS = 10.0
"""The limit for a step in a loop, and for the loop's end."""


class CoroutineThread:
    """A thread that runs one coroutine to its end. `join` raises the coroutine's exception."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._main = main
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_started(self) -> bool:
        """Return whether `start` was called. The coroutine may have ended since."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end.

        Raises:
            TimeoutError: it still runs.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._thread.name} still runs after {seconds:g} s")
        if self._failures:
            raise self._failures[0]

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again by join
            self._failures.append(error)


class LoopThread(ManagedResource):
    """An event loop that runs steps for any thread. At its end it cancels all its tasks."""

    def __init__(self, name: str) -> None:
        self._thread = CoroutineThread(self._run_loop, name)
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._stopped = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Return whether it can run steps."""
        return self._loop.done() and self._loop.result().is_running()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End it."""
        if self.is_running:
            self.run_step(self._stopped.set)
            self._thread.join(CALL_SECONDS)

    def run_step(self, step: Callable[[], Awaitable[None] | None]) -> None:
        """Run a step in the loop, and return when it has ended."""

        async def call() -> None:
            if (rest := step()) is not None:
                await rest

        loop = self._loop.result(CALL_SECONDS)
        asyncio.run_coroutine_threadsafe(call(), loop).result(CALL_SECONDS)

    async def _run_loop(self) -> None:
        self._loop.set_result(asyncio.get_running_loop())
        await self._stopped.wait()
