"""A deadline for receiving a complete request, and for a client that does not read its response.

Sanic's REQUEST_TIMEOUT restarts at every byte and does not cover the body, so a client that sends
one byte per second holds a connection for ever. Here each connection is checked 8 times per
deadline. A request that is still incomplete after a full deadline gets 408, and its connection
closes.

    header ──> body ──> handler ──> response ──> rest of the body, if an error left it unread
    └── 408 after the deadline ──┘               └── closed after the deadline
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from sanic import Request
from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.response import BaseHTTPResponse

from busyapi.errors import Overloaded
from busyapi.web.budget import FREE_BYTES, ReceiveBudget
from busyapi.web.connections import TrackedProtocol
from busyapi.web.http1 import StrictHttp
from busyapi.web.read_turns import LARGE_READ_BYTES, ReadTurns
from busyapi.web.request import BufferedRequest
from busyapi.web.request_id import HEADER, accept_or_generate

LINGER_SECONDS = 1.0
MAX_SKIPPED_BYTES = 67_108_864
"""Limit for a refused body. Its bytes are dropped as they arrive, so they take no memory."""
CHECKS_PER_DEADLINE = 8
"""With 8, a request is cut off after 1 to 1 1/8 deadlines."""

_NOT_ARRIVING = 0
_RESPONSE_UNREAD = -1
"""The results of a check other than the number of an arriving request."""


class ConnectionLimits(NamedTuple):
    """The limits of each connection of a port, as members of its protocol's class."""

    deadline: float
    max_header: int
    budget: ReceiveBudget


class RequestTrackingHttp(StrictHttp):
    """Sanic's side of one connection; its requests have numbers and ids."""

    __slots__ = ("_request_id", "refuses_next", "request_number")

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.request_number = 0
        self.refuses_next = False
        """Whether the next request is refused before it is parsed."""
        self._request_id = ""

    async def http1_request_header(self) -> None:
        """Receive a head, unless the next request is to be refused."""
        if self.refuses_next:
            raise Overloaded
        await super().http1_request_header()

    def init_for_request(self) -> None:
        """Prepare for the next request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.protocol.release_body()
        self.request_number += 1
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The id of the current request: the client's, or one generated once."""
        if not self._request_id:
            client_id = self.request.headers.get(HEADER) if self.request else None
            self._request_id = accept_or_generate(client_id)
        return self._request_id

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Add the id to the response, and free the body, which is no longer needed."""
        response.headers[HEADER] = self.request_id
        if isinstance(self.request, BufferedRequest):
            self.request.release_body()
        return super().respond(response)

    @property
    def has_unread_body(self) -> bool:
        """Return whether a part of the body is unread."""
        return bool(self.request_body)

    def skip_body(self) -> None:
        """Skip the rest of the body after an error, up to MAX_SKIPPED_BYTES.

        Closing with unread bytes would reset the connection, and a client that reads only after it
        has sent everything would never see the response. The deadline bounds this too.
        """
        if self.expecting_continue:
            # The client waits for 100 before it sends the body, and gets the response instead.
            self.expecting_continue = self.keep_alive = False
            self.request_body = None
        elif self.request_bytes_left is not None and self.request_bytes_left > MAX_SKIPPED_BYTES:
            self.request_bytes_left = MAX_SKIPPED_BYTES
            self.keep_alive = False
        # `read` adds the sizes of chunks to this, and compares the sum with the limit.
        self.request_bytes, self.request_max_size = -MAX_SKIPPED_BYTES, 0


def request_id_of(request: Request) -> str:
    """Return the id of a request, or "" outside a connection."""
    stream = request.stream
    return stream.request_id if isinstance(stream, RequestTrackingHttp) else ""


class DeadlineProtocol(TrackedProtocol):
    """Sanic's protocol with a deadline for each request, and a part in the receive budget."""

    HTTP_CLASS = RequestTrackingHttp
    deadline: float = 15.0
    budget: ClassVar[ReceiveBudget] = ReceiveBudget()
    read_turns: ClassVar[ReadTurns] = ReadTurns()
    on_abort: Callable[[Request], None] = staticmethod(lambda _: None)
    """Called for a request that was complete and gets no response."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.body_bytes = 0
        """Bytes of a body that left the receive buffer and are not decoded."""
        self.buffered_bytes, self.buffered_since = 0, 0.0
        self._reserved_bytes = 0
        self._checks = 0
        self._arriving = _NOT_ARRIVING
        self._check_handle: asyncio.TimerHandle | None = None

    def on_accepted(self) -> None:
        """Start the checks."""
        self._schedule_check()

    def make_room(self, idle_since: float) -> bool:
        """Free the place of this connection if it is idle or slow; return whether it did."""
        if super().make_room(idle_since):
            return True
        http, task = self.http, self._task
        if http is None or not task:
            return False
        number = self._arriving_request(http)
        is_slow = http.stage is Stage.REQUEST or (self._checks > 0 and number == self._arriving)
        if number == _NOT_ARRIVING or (self.connection_table.has_grace_period and not is_slow):
            return False
        if not self.connection_table.allow_lingering(self):
            if self.transport:
                self.transport.abort()
            return True
        self._arriving = number
        self._abort_request(http, task, Overloaded())
        # Do not wait for the rest of the body: the place is already given away.
        self.loop.call_later(LINGER_SECONDS, self.abort)
        return True

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and update the budget."""
        super().data_received(data)
        self.update_budget()
        if len(data) >= LARGE_READ_BYTES:
            self.read_turns.record(self, len(data))

    def resume_reading(self) -> None:
        """Resume reading, in turn with other connections if this one was paused."""
        transport: Any = self.transport
        if not transport.is_reading():
            self.read_turns.request(self)

    @property
    def is_between_requests(self) -> bool:
        """Return whether the connection waits for the first byte of a request."""
        http = self.http
        # After an error the rest of a body, or of what is dropped, may still arrive.
        is_idle = http is not None and http.stage is Stage.IDLE and http.keep_alive
        return is_idle and not http.has_unread_body

    def unread_bytes(self) -> int:
        """Return how many received bytes this process has not parsed."""
        return len(self.recv_buffer)

    def update_budget(self) -> None:
        """Report the bytes that this connection holds to the budget."""
        size = self.unread_bytes() + self.body_bytes
        if size > FREE_BYTES or self.buffered_bytes:
            self.budget.update(self, size)

    def reserve_body(self) -> None:
        """Count the body in the budget as complete and waiting to be decoded."""
        self._reserved_bytes = self.budget.reserve_body(self.body_bytes)

    def release_body(self) -> None:
        """Take the body out of the budget."""
        self.body_bytes = 0
        if self._reserved_bytes:
            self.budget.release_body(self._reserved_bytes)
            self._reserved_bytes = 0
        if self.buffered_bytes:
            self.update_budget()

    def shed(self) -> bool:
        """Refuse an arriving request, or abort a client that sends far ahead of its responses."""
        http, task = self.http, self._task
        if http is None or not task:
            return False
        self._arriving = self._arriving_request(http)
        if self._arriving != _NOT_ARRIVING:
            self._abort_request(http, task, Overloaded())
            return True
        if http.stage is Stage.IDLE and len(self.recv_buffer) > FREE_BYTES:
            # The request has just arrived and its task has not run, so there is nothing to cancel.
            http.refuses_next = True
            return True
        if self.unread_bytes() > FREE_BYTES:
            self.abort()
            return True
        return False

    def abort(self) -> None:
        """Abort the connection, as Sanic does when a stop takes too long."""
        http = self.http
        if self.transport and http and http.stage is Stage.HANDLER and not http.has_unread_body:
            self.on_abort(http.request)
        super().abort()  # type: ignore[no-untyped-call]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks, and release the budget."""
        if self._check_handle:
            self._check_handle.cancel()
        self.release_body()
        self.budget.update(self, 0)
        self.read_turns.remove(self)
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        seconds = self.deadline / CHECKS_PER_DEADLINE
        self._check_handle = self.loop.call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        http = self.http
        if not self._task or http is None:
            return
        number = self._arriving_request(http)
        self._checks = self._checks + 1 if number and number == self._arriving else 0
        self._arriving = number
        if self._checks >= CHECKS_PER_DEADLINE:
            self._abort_request(http, self._task, RequestTimeout("Request Timeout"))
        self._schedule_check()

    def _arriving_request(self, http: Any) -> int:
        if not self._can_write.is_set():
            return _RESPONSE_UNREAD
        is_arriving = http.stage is Stage.REQUEST or http.request_body
        return http.request_number if is_arriving else _NOT_ARRIVING

    def _abort_request(self, http: Any, task: asyncio.Task[Any], error: Exception) -> None:
        if self._arriving == _RESPONSE_UNREAD and self.transport:
            self.transport.abort()
            return
        if http.stage in {Stage.REQUEST, Stage.HANDLER}:
            http.exception = error
            http.perft0 = None
        # Without `http.exception`, as after the response, this closes the connection.
        task.cancel()
