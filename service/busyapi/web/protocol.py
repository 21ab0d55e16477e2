"""A deadline for the whole of a request, and for the client that does not read its answer.

Sanic's REQUEST_TIMEOUT starts anew at every byte, and does not cover the body, so a client that
sends one byte a second holds a connection for ever. Here a connection is looked at now and then:
a request that is still arriving at every look of a whole deadline is answered 408 and the
connection closed.

    header ──> body ──> handler ──> answer ──> rest of the body, if an error left it unread
    └── 408 after the deadline ──┘             └── hung up after the deadline
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any

from sanic import Request
from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.response import BaseHTTPResponse

from busyapi.errors import Overloaded
from busyapi.web.connections import KnownProtocol
from busyapi.web.http1 import StrictHttp
from busyapi.web.request_id import HEADER, chosen

LINGER_SECONDS = 1.0
LOOKS = 8
"""A request is cut off between one deadline and 1 + 1/8 of one."""

_NOTHING = 0
_UNREAD = -1
"""What a look finds besides the number of a request that is arriving."""


class WholeRequest(Request):
    """Sanic's request; the body of one is read whole without an asynchronous generator."""

    async def receive_body(self) -> None:
        """Read the body, as a route that does not stream asks for it."""
        stream: Any = self.stream
        parts: list[bytes] = []
        while stream and stream.request_body:
            if part := await stream.read():
                parts.append(part)
        self.body = self.body or b"".join(parts)


class NumberedHttp(StrictHttp):
    """Sanic's side of one connection, its requests numbered and named."""

    __slots__ = ("_request_id", "number")

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.number = 0
        self._request_id = ""

    def init_for_request(self) -> None:
        """Begin with the next request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.number += 1
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The name of the present request: its own, or one made once."""
        if not self._request_id:
            self._request_id = chosen(self.request.headers.get(HEADER) if self.request else None)
        return self._request_id

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Put the name on whatever answer there will be."""
        response.headers[HEADER] = self.request_id
        return super().respond(response)

    @property
    def unread(self) -> bool:
        """Whether a body, or a part of it, is still to come."""
        return bool(self.request_body)

    def read_on(self) -> None:
        """After an error, read what is left of the body, whatever its length.

        Closing with unread bytes would reset the connection, and a client that sends all before
        it reads would never see the answer. The deadline ends this.
        """
        self.request_bytes = -math.inf  # is compared with the limit, and no more


def named(request: Request) -> str:
    """Give the name of a request."""
    stream = request.stream
    return stream.request_id if isinstance(stream, NumberedHttp) else ""


class DeadlineProtocol(KnownProtocol):
    """Sanic's protocol with that look."""

    HTTP_CLASS = NumberedHttp
    deadline: float = 15.0
    cut_off: Callable[[Request], None] = staticmethod(lambda _: None)
    """Told of a request that came whole and gets no answer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._looks = 0
        self._seen = _NOTHING
        self._look_handle: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """Start looking."""
        self._schedule()

    def make_room(self, before: float) -> bool:
        """Give the connection up for another one if it is idle or slow; say so."""
        if super().make_room(before):
            return True
        http, task = self.http, self._task
        if http is None or not task:
            return False
        seen = self._see(http)
        slow = self._looks > 0 and seen == self._seen
        if seen == _NOTHING or (self.port.patient and not slow):
            return False
        self._seen = seen
        self._give_up(http, task, Overloaded())
        # What is left of its body is not waited for: its place is taken.
        self.loop.call_later(LINGER_SECONDS, self.abort)
        return True

    def abort(self) -> None:
        """Cut the connection, as Sanic does when a stop takes too long."""
        http = self.http
        if self.transport and http and http.stage is Stage.HANDLER and not http.unread:
            self.cut_off(http.request)
        super().abort()  # type: ignore[no-untyped-call]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._look_handle:
            self._look_handle.cancel()
        super().connection_lost(exc)

    def _schedule(self) -> None:
        self._look_handle = self.loop.call_later(self.deadline / LOOKS, self._look)

    def _look(self) -> None:
        http = self.http
        if not self._task or http is None:
            return
        seen = self._see(http)
        self._looks = self._looks + 1 if seen and seen == self._seen else 0
        self._seen = seen
        if self._looks >= LOOKS:
            self._give_up(http, self._task, RequestTimeout("Request Timeout"))
        self._schedule()

    def _see(self, http: Any) -> int:
        if not self._can_write.is_set():
            return _UNREAD
        arriving = http.stage is Stage.REQUEST or http.request_body
        return http.number if arriving else _NOTHING

    def _give_up(self, http: Any, task: asyncio.Task[Any], why: Exception) -> None:
        if self._seen == _UNREAD and self.transport:
            self.transport.abort()
            return
        if http.stage in {Stage.REQUEST, Stage.HANDLER}:
            http.exception = why
            http.perft0 = None
        # Without an exception, as once the answer is sent, this closes the connection.
        task.cancel()
