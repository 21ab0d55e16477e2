"""A scheduler of long decodes: steps between which the event loop serves other requests.

Only one long body is decoded at a time. If two hundred took turns, a request could wait for two
hundred steps, and all their lines would be in memory at the same time. A short body does not wait.
Clients take turns: one with forty long bodies in the queue delays another by one body, not by
forty.

Slow decoding gets at most a quarter of the event loop: after each slow step, also the last, there
is a pause three times as long. For a long single usage nearly each step counts as slow. So a usage
of another client waits for at most one step in total: if that step delays the reading of its
request, no second step delays its response.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import thread_time
from typing import TypeVar

from busyapi.decode.incremental import Incremental
from busyapi.errors import Overloaded

_T = TypeVar("_T")

SLOW_STEP_SECONDS = 0.001
"""A step over an ordinary batch takes a third of this."""
SLOW_SINGLE_STEP_SECONDS = 0.0001
"""For a single usage, almost each step is slow: those that are long enough to have steps are rare,
and three clients that send nothing else would keep the event loop busy."""
PAUSE_FACTOR = 3
"""The pause after a slower step is this many times as long as the step."""


class DecodeScheduler:
    """The turns to decode a long body in one process."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._busy = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By client; the first is the next. The number of connections bounds it."""

    async def run(
        self,
        work: Incremental[_T],
        sender: Callable[[], str],
        slow_seconds: float = SLOW_STEP_SECONDS,
    ) -> _T:
        """Do the work and return its result; `sender` is called only if the work is long.

        `slow_seconds`: after a step of this length or more there is a pause.

        Raises:
            Overloaded: the turn did not come within the timeout.
        """
        try:
            next(work)
            await self._acquire(sender())
            seconds = 0.0
            try:
                while True:
                    await asyncio.sleep(_pause_seconds(seconds, slow_seconds))
                    start = thread_time()  # without the time that other processes take
                    try:
                        next(work)
                    finally:
                        seconds = thread_time() - start
            finally:
                self._release_after(_pause_seconds(seconds, slow_seconds))
        except StopIteration as end:
            result: _T = end.value
        return result

    async def _acquire(self, sender: str) -> None:
        if not self._busy:
            self._busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(sender, deque()).append(turn)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._release()  # the turn came at the same moment
            if isinstance(error, TimeoutError):
                raise Overloaded from None
            raise

    def _release_after(self, pause: float) -> None:
        """Release the turn after a pause."""
        if pause:
            # The response does not wait for this. If the loop stops first, nothing is lost.
            asyncio.get_running_loop().call_later(pause, self._release)
        else:
            self._release()

    def _release(self) -> None:
        """Pass the turn to the next client's oldest work that still waits."""
        while self._waiting:
            sender = next(iter(self._waiting))
            turns = self._waiting.pop(sender)
            turn = turns.popleft()
            if turns:
                self._waiting[sender] = turns  # behind all other clients
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False


def _pause_seconds(seconds: float, slow_seconds: float) -> float:
    return PAUSE_FACTOR * seconds if seconds > slow_seconds else 0.0
