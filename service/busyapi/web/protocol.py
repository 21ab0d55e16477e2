"""A deadline for the whole of a request, and for the client that does not read its answer.

Sanic's REQUEST_TIMEOUT starts anew at every byte, and does not cover the body, so a client that
sends one byte a second holds a connection for ever. Here a connection is looked at now and then:
a request that is still arriving at every look of a whole deadline is answered 408 and the
connection closed.

    header ──> body ──> handler ──> answer ──> rest of the body, if an error left it unread
    └── 408 after the deadline ──┘             └── hung up after the deadline
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from sanic import Request
from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.response import BaseHTTPResponse

from busyapi.errors import BodyTooLarge, Overloaded
from busyapi.web.budget import FREE_BYTES, Budget
from busyapi.web.connections import KnownProtocol
from busyapi.web.http1 import StrictHttp
from busyapi.web.request_id import HEADER, chosen

LINGER_SECONDS = 1.0
MAX_PASSED_BYTES = 67_108_864
"""Of a refused body. They are dropped as they come, so they cost their reading and no memory."""
LOOKS = 8
"""A request is cut off between one deadline and 1 + 1/8 of one."""

_NOTHING = 0
_UNREAD = -1
"""What a look finds besides the number of a request that is arriving."""


class Bounds(NamedTuple):
    """What holds for each connection of a port, as members of its protocol's class."""

    deadline: float
    max_header: int
    budget: Budget


class WholeRequest(Request):
    """Sanic's request; a body is received when its handler asks for it, and within its limit."""

    async def receive_body(self) -> None:
        """Pass over the body of a request that needs none; Sanic calls this before a handler."""
        stream: Any = self.stream
        while stream and stream.request_body:
            await stream.read()

    async def receive(self, limit: int, look: Callable[[bytes], None] | None = None) -> None:
        """Receive the whole body; `look` sees its first part, and may refuse it.

        Raises:
            BodyTooLarge: its length says so already.
            PayloadTooLarge: its chunks do.
            Overloaded: too much is on its way into this process.
        """
        stream: Any = self.stream
        if not stream or not stream.request_body:
            return
        stream.request_max_size = limit
        if stream.request_bytes > limit:
            stream.keep_alive = False
            raise BodyTooLarge(f"The body is larger than {limit} bytes.")
        body: bytes | bytearray = b""
        while stream.request_body:
            part = await stream.read()
            if not part:
                continue
            stream.protocol.kept += len(part)
            if body:
                # One buffer that grows: a list of parts would be as large again when it is joined,
                # and many times larger when they are of a byte each.
                body = bytearray(body) if isinstance(body, bytes) else body
                body += part
            else:
                body = part
                if look:
                    look(part)
        stream.protocol.received_whole()
        self.body = bytes(body)

    def release_body(self) -> None:
        """Forget the body: it is decoded, or refused."""
        self.body = b""
        stream: Any = self.stream
        if stream:
            stream.protocol.forget_body()


class NumberedHttp(StrictHttp):
    """Sanic's side of one connection, its requests numbered and named."""

    __slots__ = ("_request_id", "number", "turned_away")

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.number = 0
        self.turned_away = False
        """Whether the next request is refused, whatever it is."""
        self._request_id = ""

    async def http1_request_header(self) -> None:
        """Receive a head, unless its request gave way to others."""
        if self.turned_away:
            raise Overloaded
        await super().http1_request_header()

    def init_for_request(self) -> None:
        """Begin with the next request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.protocol.forget_body()
        self.number += 1
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The name of the present request: its own, or one made once."""
        if not self._request_id:
            self._request_id = chosen(self.request.headers.get(HEADER) if self.request else None)
        return self._request_id

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Put the name on whatever answer there will be; the body is not needed any more."""
        response.headers[HEADER] = self.request_id
        if isinstance(self.request, WholeRequest):
            self.request.release_body()
        return super().respond(response)

    @property
    def unread(self) -> bool:
        """Whether a body, or a part of it, is still to come."""
        return bool(self.request_body)

    def read_on(self) -> None:
        """After an error, pass over what is left of the body, up to MAX_PASSED_BYTES.

        Closing with unread bytes would reset the connection, and a client that sends all before
        it reads would never see the answer. The deadline ends this too.
        """
        if self.expecting_continue:
            # The client waits for a word before it sends the body, and gets the answer.
            self.expecting_continue = self.keep_alive = False
            self.request_body = None
        elif self.request_bytes_left is not None and self.request_bytes_left > MAX_PASSED_BYTES:
            self.request_bytes_left = MAX_PASSED_BYTES
            self.keep_alive = False
        # What chunks announce is added to this, and compared with the limit.
        self.request_bytes, self.request_max_size = -MAX_PASSED_BYTES, 0


def named(request: Request) -> str:
    """Give the name of a request."""
    stream = request.stream
    return stream.request_id if isinstance(stream, NumberedHttp) else ""


class DeadlineProtocol(KnownProtocol):
    """Sanic's protocol with that look."""

    HTTP_CLASS = NumberedHttp
    deadline: float = 15.0
    budget: ClassVar[Budget] = Budget()
    cut_off: Callable[[Request], None] = staticmethod(lambda _: None)
    """Told of a request that came whole and gets no answer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.kept = 0
        """Bytes of a body that were taken out of the receive buffer and are not decoded."""
        self.held_bytes, self.held_since = 0, 0.0
        self._waiting_whole = 0
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
        slow = http.stage is Stage.REQUEST or (self._looks > 0 and seen == self._seen)
        if seen == _NOTHING or (self.port.patient and not slow):
            return False
        if not self.port.leave(self):
            if self.transport:
                self.transport.abort()
            return True
        self._seen = seen
        self._give_up(http, task, Overloaded())
        # What is left of its body is not waited for: its place is taken.
        self.loop.call_later(LINGER_SECONDS, self.abort)
        return True

    def data_received(self, data: bytes) -> None:
        """Take what came, and count what is held."""
        super().data_received(data)
        self.count_held()

    def buffered(self) -> int:
        """Return how many bytes wait to be read by this process."""
        return len(self.recv_buffer)

    def count_held(self) -> None:
        """Tell the budget what this connection holds."""
        size = self.buffered() + self.kept
        if size > FREE_BYTES or self.held_bytes:
            self.budget.hold(self, size)

    def received_whole(self) -> None:
        """Note that the body is whole, and waits to be decoded."""
        self._waiting_whole = self.budget.wait_whole(self.kept)

    def forget_body(self) -> None:
        """Note that the body is not held any more."""
        self.kept = 0
        if self._waiting_whole:
            self.budget.decoded(self._waiting_whole)
            self._waiting_whole = 0
        if self.held_bytes:
            self.count_held()

    def give_way(self) -> bool:
        """Refuse a request that is arriving; cut off a client that sends far ahead of answers."""
        http, task = self.http, self._task
        if http is None or not task:
            return False
        self._seen = self._see(http)
        if self._seen != _NOTHING:
            self._give_up(http, task, Overloaded())
            return True
        if http.stage is Stage.IDLE and len(self.recv_buffer) > FREE_BYTES:
            # It came this moment, and its task has not run: nothing is there to be interrupted.
            http.turned_away = True
            return True
        if self.buffered() > FREE_BYTES:
            self.abort()
            return True
        return False

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
        self.forget_body()
        self.budget.hold(self, 0)
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
