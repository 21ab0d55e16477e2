"""Long work of one request, in steps between which the event loop serves others.

One long body is read at a time: with a turn each, two hundred of them would hold the loop for two
hundred steps, and all their lines would be in memory at once. A short one does not wait.
"""

import asyncio
from typing import TypeVar

from busyapi.decode.steps import Steps
from busyapi.errors import Overloaded

_T = TypeVar("_T")


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
                while True:
                    await asyncio.sleep(0)
                    next(steps)
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
