"""Long work of one request, in steps between which the event loop serves others.

One long body is read at a time: with a turn each, two hundred of them would hold the loop for two
hundred steps, and all their lines would be in memory at once. A short one does not wait. Senders
take turns: one that has forty long bodies waiting delays another's by one of them, not by forty.

Whoever sends what is slow to read gets no more than a quarter of the loop: a step that took long is
followed by a pause that is three times as long, the last step too. So a usage that another client
sends waits for one step at most, and not for one before it is read and one before it is answered.
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
"""A step over ordinary usages takes a third of this."""
PAUSE_TIMES = 3
"""The pause after a longer step, in lengths of the step."""


class DecodeScheduler:
    """Whose turn it is in one process."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._busy = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By sender; the first one is the next. Bounded by the connections."""

    async def run(self, work: Incremental[_T], sender: Callable[[], str]) -> _T:
        """Do the work; give its result. The sender is asked for only if the work is long.

        Raises:
            Overloaded: its turn did not come in time.
        """
        try:
            next(work)
            await self._acquire(sender())
            seconds = 0.0
            try:
                while True:
                    await asyncio.sleep(_pause(seconds))
                    begun = thread_time()  # what other processes take is no fault of this work
                    try:
                        next(work)
                    finally:
                        seconds = thread_time() - begun
            finally:
                self._give_after(seconds)
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
                self._release()  # it came in the same moment
            if isinstance(error, TimeoutError):
                raise Overloaded from None
            raise

    def _give_after(self, seconds: float) -> None:
        """Give the turn away, after a pause if the last step took long."""
        if pause := _pause(seconds):
            # The answer does not wait for it. A loop that stops has no use for the turn.
            asyncio.get_running_loop().call_later(pause, self._release)
        else:
            self._release()

    def _release(self) -> None:
        """Give the turn to the next sender's oldest work that still waits for it."""
        while self._waiting:
            sender = next(iter(self._waiting))
            line = self._waiting.pop(sender)
            turn = line.popleft()
            if line:
                self._waiting[sender] = line  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False


def _pause(seconds: float) -> float:
    return PAUSE_TIMES * seconds if seconds > SLOW_STEP_SECONDS else 0.0
