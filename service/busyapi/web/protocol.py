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
from busyapi.web.budget import FREE_BYTES, ReceiveBudget
from busyapi.web.connections import TrackedProtocol
from busyapi.web.http1 import StrictHttp
from busyapi.web.request_id import HEADER, accept_or_generate

LINGER_SECONDS = 1.0
MAX_SKIPPED_BYTES = 67_108_864
"""Of a refused body. They are dropped as they come, so they cost their reading and no memory."""
CHECKS_PER_DEADLINE = 8
"""A request is cut off between one deadline and 1 + 1/8 of one."""

_NOT_ARRIVING = 0
_RESPONSE_UNREAD = -1
"""What a look finds besides the number of a request that is arriving."""


class ConnectionLimits(NamedTuple):
    """What holds for each connection of a port, as members of its protocol's class."""

    deadline: float
    max_header: int
    budget: ReceiveBudget


class BufferedRequest(Request):
    """Sanic's request; a body is received when its handler asks for it, and within its limit."""

    async def receive_body(self) -> None:
        """Pass over the body of a request that needs none; Sanic calls this before a handler."""
        stream: Any = self.stream
        while stream and stream.request_body:
            await stream.read()

    async def receive_whole_body(
        self, limit: int, check_start: Callable[[bytes], None] | None = None
    ) -> None:
        """Receive the whole body; `check_start` sees its first part, and may refuse it.

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
            stream.protocol.body_bytes += len(part)
            if body:
                # One buffer that grows: a list of parts would be as large again when it is joined,
                # and many times larger when they are of a byte each.
                body = bytearray(body) if isinstance(body, bytes) else body
                body += part
            else:
                body = part
                if check_start:
                    check_start(part)
        stream.protocol.reserve_body()
        self.body = bytes(body)

    def release_body(self) -> None:
        """Forget the body: it is decoded, or refused."""
        self.body = b""
        stream: Any = self.stream
        if stream:
            stream.protocol.release_body()


class RequestTrackingHttp(StrictHttp):
    """Sanic's side of one connection, its requests numbered and named."""

    __slots__ = ("_request_id", "request_number", "shed")

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.request_number = 0
        self.shed = False
        """Whether the next request is refused, whatever it is."""
        self._request_id = ""

    async def http1_request_header(self) -> None:
        """Receive a head, unless its request gave way to others."""
        if self.shed:
            raise Overloaded
        await super().http1_request_header()

    def init_for_request(self) -> None:
        """Begin with the next request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.protocol.release_body()
        self.request_number += 1
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The name of the present request: its own, or one made once."""
        if not self._request_id:
            sent = self.request.headers.get(HEADER) if self.request else None
            self._request_id = accept_or_generate(sent)
        return self._request_id

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Put the name on whatever answer there will be; the body is not needed any more."""
        response.headers[HEADER] = self.request_id
        if isinstance(self.request, BufferedRequest):
            self.request.release_body()
        return super().respond(response)

    @property
    def has_unread_body(self) -> bool:
        """Whether a body, or a part of it, is still to come."""
        return bool(self.request_body)

    def skip_body(self) -> None:
        """After an error, pass over what is left of the body, up to MAX_SKIPPED_BYTES.

        Closing with unread bytes would reset the connection, and a client that sends all before
        it reads would never see the answer. The deadline ends this too.
        """
        if self.expecting_continue:
            # The client waits for a word before it sends the body, and gets the answer.
            self.expecting_continue = self.keep_alive = False
            self.request_body = None
        elif self.request_bytes_left is not None and self.request_bytes_left > MAX_SKIPPED_BYTES:
            self.request_bytes_left = MAX_SKIPPED_BYTES
            self.keep_alive = False
        # What chunks announce is added to this, and compared with the limit.
        self.request_bytes, self.request_max_size = -MAX_SKIPPED_BYTES, 0


def request_id_of(request: Request) -> str:
    """Give the name of a request."""
    stream = request.stream
    return stream.request_id if isinstance(stream, RequestTrackingHttp) else ""


class DeadlineProtocol(TrackedProtocol):
    """Sanic's protocol with that look."""

    HTTP_CLASS = RequestTrackingHttp
    deadline: float = 15.0
    budget: ClassVar[ReceiveBudget] = ReceiveBudget()
    on_abort: Callable[[Request], None] = staticmethod(lambda _: None)
    """Told of a request that came whole and gets no answer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.body_bytes = 0
        """Bytes of a body that were taken out of the receive buffer and are not decoded."""
        self.buffered_bytes, self.buffered_since = 0, 0.0
        self._reserved_bytes = 0
        self._checks = 0
        self._arriving = _NOT_ARRIVING
        self._check_handle: asyncio.TimerHandle | None = None

    def on_accepted(self) -> None:
        """Start looking."""
        self._schedule_check()

    def make_room(self, before: float) -> bool:
        """Give the connection up for another one if it is idle or slow; say so."""
        if super().make_room(before):
            return True
        http, task = self.http, self._task
        if http is None or not task:
            return False
        seen = self._arriving_request(http)
        slow = http.stage is Stage.REQUEST or (self._checks > 0 and seen == self._arriving)
        if seen == _NOT_ARRIVING or (self.connection_table.has_grace_period and not slow):
            return False
        if not self.connection_table.allow_lingering(self):
            if self.transport:
                self.transport.abort()
            return True
        self._arriving = seen
        self._abort_request(http, task, Overloaded())
        # What is left of its body is not waited for: its place is taken.
        self.loop.call_later(LINGER_SECONDS, self.abort)
        return True

    def data_received(self, data: bytes) -> None:
        """Take what came, and count what is held."""
        super().data_received(data)
        self.update_budget()

    def unread_bytes(self) -> int:
        """Return how many bytes wait to be read by this process."""
        return len(self.recv_buffer)

    def update_budget(self) -> None:
        """Tell the budget what this connection holds."""
        size = self.unread_bytes() + self.body_bytes
        if size > FREE_BYTES or self.buffered_bytes:
            self.budget.update(self, size)

    def reserve_body(self) -> None:
        """Note that the body is whole, and waits to be decoded."""
        self._reserved_bytes = self.budget.reserve_body(self.body_bytes)

    def release_body(self) -> None:
        """Note that the body is not held any more."""
        self.body_bytes = 0
        if self._reserved_bytes:
            self.budget.release_body(self._reserved_bytes)
            self._reserved_bytes = 0
        if self.buffered_bytes:
            self.update_budget()

    def shed(self) -> bool:
        """Refuse a request that is arriving; cut off a client that sends far ahead of answers."""
        http, task = self.http, self._task
        if http is None or not task:
            return False
        self._arriving = self._arriving_request(http)
        if self._arriving != _NOT_ARRIVING:
            self._abort_request(http, task, Overloaded())
            return True
        if http.stage is Stage.IDLE and len(self.recv_buffer) > FREE_BYTES:
            # It came this moment, and its task has not run: nothing is there to be interrupted.
            http.shed = True
            return True
        if self.unread_bytes() > FREE_BYTES:
            self.abort()
            return True
        return False

    def abort(self) -> None:
        """Cut the connection, as Sanic does when a stop takes too long."""
        http = self.http
        if self.transport and http and http.stage is Stage.HANDLER and not http.has_unread_body:
            self.on_abort(http.request)
        super().abort()  # type: ignore[no-untyped-call]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._check_handle:
            self._check_handle.cancel()
        self.release_body()
        self.budget.update(self, 0)
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        seconds = self.deadline / CHECKS_PER_DEADLINE
        self._check_handle = self.loop.call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        http = self.http
        if not self._task or http is None:
            return
        seen = self._arriving_request(http)
        self._checks = self._checks + 1 if seen and seen == self._arriving else 0
        self._arriving = seen
        if self._checks >= CHECKS_PER_DEADLINE:
            self._abort_request(http, self._task, RequestTimeout("Request Timeout"))
        self._schedule_check()

    def _arriving_request(self, http: Any) -> int:
        if not self._can_write.is_set():
            return _RESPONSE_UNREAD
        arriving = http.stage is Stage.REQUEST or http.request_body
        return http.request_number if arriving else _NOT_ARRIVING

    def _abort_request(self, http: Any, task: asyncio.Task[Any], error: Exception) -> None:
        if self._arriving == _RESPONSE_UNREAD and self.transport:
            self.transport.abort()
            return
        if http.stage in {Stage.REQUEST, Stage.HANDLER}:
            http.exception = error
            http.perft0 = None
        # Without an exception, as once the answer is sent, this closes the connection.
        task.cancel()
