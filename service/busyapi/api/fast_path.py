"""The fast path: one complete `POST /api/usages` in one packet, handled without Sanic.

    packet ──complete, ordinary, valid──> committer ──> response
       └──────anything else──> Sanic, unchanged

Most of the cost of a request is Sanic's task, header objects, router and response. The fast path
parses a packet once. If it is exactly one ordinary request that Sanic's route would answer with
201, its usage goes to the committer, and the committer's callback writes the response. Every other
packet goes to Sanic unchanged, so Sanic's route defines the response to unusual and invalid
requests. `tests/service/test_fast_path.py` compares the two.

A credential is accepted here if the route has verified the same bytes before, and it is still
valid. The first request of each credential takes the route.

While a usage waits for its commit, later bytes of its connection are held back, so that responses
keep the order of their requests. A client that disconnects cancels nothing: the committer owns the
usage.
"""

from time import monotonic
from typing import Any, ClassVar

import structlog
from sanic.http.constants import Stage

from busyapi.api.client_limits import UNLIMITED, Client
from busyapi.api.context import ABORTED_STATUS, ApiContext
from busyapi.api.patient_binding import is_bound_to
from busyapi.api.problems import map_error
from busyapi.api.request_head import (
    AUTHORIZED_HEADS,
    HEAD_CACHE,
    MAX_HEAD_BYTES,
    cache_authorized_head,
    read_head,
)
from busyapi.api.responses import render_created
from busyapi.auth.credential import Credential
from busyapi.commit.pending import PendingWrite
from busyapi.decode.usage import decode_fast
from busyapi.errors import Refused
from busyapi.ids import Seq, make_usage_id
from busyapi.telemetry.metrics import RouteTally
from busyapi.web.http1 import EMPTY_LINES
from busyapi.web.problems import CLIENT_CLOSED_REQUEST, render_problem
from busyapi.web.protocol import DeadlineProtocol
from busyapi.web.request_id import generate
from busyapi.web.responses import render_response

log = structlog.get_logger()

ROUTE = "/api/usages"
MAX_HELD_BYTES = 65_536
"""Bytes of later requests that one connection may send before its reading is paused."""

_IDLE = Stage.IDLE  # Python 3.11 looks up an enum's member slowly


class FastPathProtocol(DeadlineProtocol):
    """Sanic's protocol, with the fast path in front."""

    context: ClassVar[ApiContext]
    route_tally: ClassVar[RouteTally]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._pending: FastPathWrite | None = None
        self._held = bytearray()
        self._eof_held = False

    def data_received(self, data: bytes) -> None:
        """Submit a packet's usage, hold the packet back, or pass it to Sanic."""
        if self._pending:
            self._hold_back(data)
        elif not self._submit(data):
            super().data_received(data)

    def eof_received(self) -> bool:
        """Hold back the end of the client's requests, as any later bytes."""
        if self._pending:
            self._eof_held = True
            return True
        return super().eof_received()

    def _hold_back(self, data: bytes) -> None:
        self._held += data
        self.update_budget()
        if len(self._held) >= MAX_HELD_BYTES and self.transport:
            self.transport.pause_reading()

    def unread_bytes(self) -> int:
        """Return how many received bytes this process has not parsed."""
        return len(self.recv_buffer) + len(self._held)

    def _submit(self, data: bytes) -> bool:  # noqa: C901 - each call would cost every request
        """Submit a packet's usage; return False, and consume no byte, if Sanic must handle it."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end <= 0 or self._is_busy():
            return False
        context = self.context
        authorizer = context.authorizer
        head, authorization, request_id, parts = data[:end], None, None, None
        ordinary = HEAD_CACHE.get(head)
        if ordinary is None:
            parts = read_head(head, with_authorization=authorizer.reads_credentials != 0)
            ordinary, authorization, request_id = parts
            if ordinary is None:
                return False
        length, credentials = ordinary
        if length > context.settings.max_body or context.draining:
            return False
        # Most posts of an open installation have no credential and no limit.
        is_anonymous = authorization is None and not credentials
        unlimited_writer = authorizer.unlimited_writer if is_anonymous else None
        credential = unlimited_writer or authorizer.find_writer(authorization, credentials)
        if credential is None:
            return False
        if parts and authorization is not None and head not in AUTHORIZED_HEADS:
            cache_authorized_head(head, parts)
        body = data[end + 4 :]
        if len(body) != length:
            # A device may send a line end after its body.
            body = body[:length] if body[length:] in EMPTY_LINES else b""
        # If the body does not begin with this bracket, its meaning depends on the Content-Type.
        line = decode_fast(body, strict=context.strict) if body[:1] == b"{" else None
        if line is None:
            return False
        client = UNLIMITED if unlimited_writer else self._admit(credential, line)
        if client is None:
            return False
        write = FastPathWrite(self, line, request_id or generate(), client)
        if context.stamper is not None and credential.id:
            write.add_stamp(context.stamper.encode(credential))
        try:
            context.committers.submit(write)
        except Refused as error:
            # While Redis is down, devices retry. A refusal must not cost more CPU than a stored
            # usage: the autoscaler would add pods that cannot store anything either.
            write.fail(error)
            return True
        self._pending = write
        return True

    def _admit(self, credential: Credential, line: bytes) -> Client | None:
        """Charge a client's limits and return it; None, and no charge, if the route must decide."""
        authorizer, peer = self.context.authorizer, self.conn_info
        if credential.patient_id is not None and not is_bound_to(line, credential.patient_id):
            return None
        if not authorizer.is_limited(credential):
            return UNLIMITED
        if peer is None or not authorizer.charge_usage(credential, str(peer.client_ip)):
            return None
        return credential, str(peer.client_ip)

    def _is_busy(self) -> bool:
        """Return whether Sanic has, or may have, a part of an earlier request."""
        if self.recv_buffer or not self._task or not self._can_write.is_set():
            return True
        transport, http = self.transport, self.http
        if transport is None or transport.is_closing():
            return True
        if http is None:
            return False  # Sanic's task has not started
        # After an error the rest of a body may be unread although the response is sent.
        if http.stage is not _IDLE or not http.keep_alive or http.request_body:
            return True
        http.empty_lines = 0  # Sanic counts them since the last request
        return False

    def send_response(self, message: bytes, now: float, *, close: bool) -> None:
        """Send the pending write's response, then handle the bytes that were held back.

        `now` is the time of the monotonic clock.
        """
        self._pending = None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(message)
        self._time = now  # Sanic's keep-alive counts from here
        if close:
            self.close()
        elif self._held:
            held = bytes(self._held)
            self._held.clear()
            self.update_budget()
            # If so much was held that reading was paused, it is more than one ordinary request:
            # Sanic handles it and resumes reading.
            self.data_received(held)
        if self._eof_held and not self._pending:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a pending request as Sanic's route does."""
        if self._pending:
            self._pending.record_disconnect()
            self._pending = None
        self._held.clear()
        super().connection_lost(exc)

    def check_timeouts(self) -> None:
        """Keep Sanic, which got no request, from closing the connection as idle."""
        if self._pending:
            self._time = monotonic()
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def close_if_idle(self) -> bool:
        """Close the connection unless a request is pending."""
        return False if self._pending else bool(super().close_if_idle())


class FastPathWrite(PendingWrite):
    """The usage of a request that is answered without a handler."""

    __slots__ = ("_protocol", "client", "is_waiting", "request_id")

    is_waiting: bool

    def __init__(
        self, protocol: FastPathProtocol, line: bytes, request_id: bytes, client: Client = UNLIMITED
    ) -> None:
        # The same as the parent's, at half of its cost, which each request would pay.
        self.lines = (line,)
        self.count = 1
        self.size = len(line)
        self.key = None
        self.is_stamped = False
        self.created_at = monotonic()
        self._protocol = protocol
        self.is_waiting = True
        self.client = client
        self.partition = 0
        self.request_id = request_id

    def add_stamp(self, stamp: bytes) -> None:
        """Put a stamp behind the usage."""
        self.lines = (self.lines[0] + stamp,)
        self.size += len(stamp)
        self.is_stamped = True

    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Send a 201."""
        if not self.is_waiting:
            return
        try:
            protocol = self._protocol
            context = protocol.context
            usage = make_usage_id(Seq(last), self.partition, context.settings.partitions)
            close = context.draining
            now = self._record_status(201)
            limits = context.authorizer.render_limits(*self.client) if self.client else b""
            message = render_created(usage, self.request_id, limits, close=close)
            protocol.send_response(message, now, close=close)
        except Exception as error:  # noqa: BLE001 - it would end the committer for all requests
            self._abort(error)

    def fail(self, error: Exception) -> None:
        """Send the problem for an error."""
        if not self.is_waiting:
            return
        try:
            context = self._protocol.context
            problem = map_error(error, self.request_id.decode())
            close = context.draining
            context.record_refusal(error)
            now = self._record_status(problem.status)
            message = render_response(render_problem(problem), self.request_id, close=close)
            self._protocol.send_response(message, now, close=close)
        except Exception as defect:  # noqa: BLE001 - it would end the committer too
            self._abort(defect)

    def record_disconnect(self) -> None:
        """Count the request of a connection that ended; its response is dropped."""
        # Without a transport this process cut it, because a stop took too long.
        self._record_status(CLIENT_CLOSED_REQUEST if self._protocol.transport else ABORTED_STATUS)

    def _record_status(self, status: int) -> float:
        """Count the response, and return the time."""
        self.is_waiting = False
        now = monotonic()
        self._protocol.route_tally.record(status, now - self.created_at)
        return now

    def _abort(self, error: Exception) -> None:
        self.is_waiting = False
        kind, request_id = type(error).__name__, self.request_id.decode()
        log.error("unexpected_error", error=kind, where="fast path", request_id=request_id)
        self._protocol.abort()
