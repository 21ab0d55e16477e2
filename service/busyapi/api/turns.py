"""Long work of one request, in steps between which the event loop serves others.

One long body is read at a time: with a turn each, two hundred of them would hold the loop for two
hundred steps, and all their lines would be in memory at once. A short one does not wait.

Whoever sends what is slow to read gets no more than half of the loop: a step that took long is
followed by a pause that is as long.
"""

import asyncio
from time import thread_time
from typing import TypeVar

from busyapi.decode.steps import Steps
from busyapi.errors import Overloaded

_T = TypeVar("_T")

LONG_SECONDS = 0.001
"""A step over ordinary usages takes a third of this."""


class Turns:
    """Whose turn it is in one process."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._busy = asyncio.Lock()

    async def finish(self, steps: Steps[_T]) -> _T:
        """Do the work; give its result.

        Raises:
            Overloaded: its turn did not come in time.
        """
        try:
            next(steps)
            await self._take()
            try:
                seconds = 0.0
                while True:
                    await asyncio.sleep(seconds if seconds > LONG_SECONDS else 0)
                    begun = thread_time()  # what other processes take is no fault of this work
                    next(steps)
                    seconds = thread_time() - begun
            finally:
                self._busy.release()
        except StopIteration as end:
            result: _T = end.value
        return result

    async def _take(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._busy.acquire()
        except TimeoutError:
            pass
        else:
            return
        raise Overloaded
