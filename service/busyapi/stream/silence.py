"""Notices that a server does not reply because another one has replaced it.

A server that is lost without a word, or that pauses its clients, never says so, and the timeout of
a reply is long, because a slow disk delays replies too.
"""

import asyncio
from collections.abc import Awaitable, Callable

from busyapi.errors import RedisUnavailable

FIRST_CHECK_SECONDS = 0.3
"""Longer than almost every reply."""
CHECK_INTERVAL_SECONDS = 0.2


class SilenceWatch:
    """Closes a connection while a reply is overdue, if the server has been replaced."""

    def __init__(
        self, is_replaced: Callable[[], Awaitable[bool]], fail: Callable[[str], None]
    ) -> None:
        self._is_replaced, self._fail = is_replaced, fail
        self._task: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FIRST_CHECK_SECONDS, self._start)

    def close(self) -> None:
        """End it: the reply is there, or the connection is closed."""
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            try:
                if await self._is_replaced():
                    break
            except RedisUnavailable:
                pass  # no other server says so
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        self._fail("it has not replied, and is down or has been replaced")
