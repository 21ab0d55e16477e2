"""A deadline for the whole of a request.

Sanic's REQUEST_TIMEOUT starts anew at every byte, and does not cover the body, so a client that
sends one byte a second holds a connection for ever. Here a connection is looked at now and then:
a request that is still arriving at every look of a whole deadline is answered 408 and the
connection closed. It costs nothing for each request.
"""

import asyncio
from typing import Any

from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.server import HttpProtocol

LOOKS = 8
"""A request is cut off between one deadline and 1 + 1/8 of one."""


class DeadlineProtocol(HttpProtocol):
    """Sanic's protocol with that look."""

    deadline: float = 15.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._looks = 0
        self._arriving: object = None
        self._look_handle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start looking."""
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._look_handle:
            self._look_handle.cancel()
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _schedule(self) -> None:
        self._look_handle = self.loop.call_later(self.deadline / LOOKS, self._look)

    def _look(self) -> None:
        http = self.http
        if not self._task or http is None:
            return
        # No request yet means that its header is still arriving; one object is one request.
        header = http.stage is Stage.REQUEST
        body = http.stage is Stage.HANDLER and bool(http.request_body)
        arriving = (http.request or "header") if header or body else None
        self._looks = self._looks + 1 if arriving and arriving is self._arriving else 0
        self._arriving = arriving
        if self._looks < LOOKS:
            self._schedule()
            return
        http.exception = RequestTimeout("Request Timeout")
        self._task.cancel()
