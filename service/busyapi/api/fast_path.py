"""The fast path: one complete, ordinary post of a usage or a short batch, handled without Sanic.

    packet ──complete, ordinary, valid──> committer ──> response
       ├──ordinary, the body follows────> kept, and handled with the next packet
       └──────anything else──> Sanic, unchanged

Most of the cost of a request is Sanic's task, header objects, router and response. The fast path
parses a packet once. If it is exactly one ordinary request that Sanic's route would answer with
201, its usage goes to the committer, and the committer's callback writes the response. Every other
packet goes to Sanic unchanged, so Sanic's route defines the response to unusual and invalid
requests. `tests/service/test_fast_path.py` compares the two.

Some clients and proxies send the body in a packet of its own. If the head is ordinary, the first
packet is kept until the rest arrives, but not for long: then Sanic gets it, with its deadline.

A credential is accepted here if the route has verified the same bytes before, and it is still
valid. The first request of each credential takes the route.

While a usage waits for its commit, later bytes of its connection are held back, so that responses
keep the order of their requests. A client that disconnects cancels nothing: the committer owns the
usage.
"""

import asyncio
from time import monotonic
from typing import Any, ClassVar

from sanic.http.constants import Stage

from busyapi.api.client_limits import UNLIMITED, Client
from busyapi.api.context import ApiContext
from busyapi.api.fast_path_write import FastPathBatch, FastPathWrite
from busyapi.api.idempotency import make_key
from busyapi.api.patient_binding import is_bound_to
from busyapi.api.request_head import HeadParts, HeadReader
from busyapi.auth.credential import Credential
from busyapi.decode.fast_array import decode_flat_array
from busyapi.decode.limits import LONG_BYTES, MAX_STEP_BYTES
from busyapi.decode.usage import decode_fast
from busyapi.errors import Refused
from busyapi.telemetry.metrics import RouteTally
from busyapi.web.budget import FREE_BYTES
from busyapi.web.http1 import EMPTY_LINES
from busyapi.web.protocol import DeadlineProtocol
from busyapi.web.request_id import generate

ROUTE, BATCH_ROUTE = "/api/usages", "/api/usages/batch"
PATH = ROUTE.encode()
MAX_HELD_BYTES = 65_536
"""Bytes of later requests that one connection may send before its reading is paused."""
START_SECONDS = 0.25
"""Time for the rest of a request whose head has arrived. Nagle's algorithm may delay it by 0.04."""

MAX_LAST_HEAD_BYTES = 1024
_NO_VALUES = (None, None, None)
_START, _BATCH_START = b"{["
_IDLE = Stage.IDLE  # Python 3.11 looks up an enum's member slowly


class FastPathProtocol(DeadlineProtocol):
    """Sanic's protocol, with the fast path in front."""

    context: ClassVar[ApiContext]
    head_reader: ClassVar[HeadReader]
    max_head_bytes: ClassVar[int]
    route_tally: ClassVar[RouteTally]
    batch_tally: ClassVar[RouteTally]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._pending: FastPathWrite | None = None
        self._held, self._eof_held = bytearray(), False
        self._start = b""
        """The start of a request, or b""."""
        self._start_timer: asyncio.TimerHandle | None = None
        self._last_head = b""
        """The last head without Authorization, X-Request-ID and Idempotency-Key."""
        self._last_parts: HeadParts | None = None
        self._is_idle = False
        """Whether Sanic was not busy when it was last asked, and got nothing since."""

    def data_received(self, data: bytes) -> None:
        """Submit a packet's usage, hold the packet back, or pass it to Sanic."""
        if self._pending:
            self._hold_back(data)
            return
        if self._start:
            data = self._take_start() + data
            if not self._submit(data, keep=False):
                self._pass_on(data)
        elif not self._submit(data):
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        self._is_idle = False
        super().data_received(data)

    def eof_received(self) -> bool:
        """Hold back the end of the client's requests, as any later bytes."""
        if self._pending:
            self._eof_held = True
            return True
        self._pass_on_start()
        return super().eof_received()

    def _keep_start(self, data: bytes) -> None:
        self._start = data
        self._start_timer = self.loop.call_later(START_SECONDS, self._pass_on_start)

    def _take_start(self) -> bytes:
        start, self._start = self._start, b""
        if self._start_timer:
            self._start_timer.cancel()
            self._start_timer = None
        return start

    def _pass_on_start(self) -> None:
        """Pass the start of a request to Sanic, which waits for the rest."""
        if self._start:
            self._pass_on(self._take_start())

    def _hold_back(self, data: bytes) -> None:
        self._held += data
        self.update_budget()
        if len(self._held) >= MAX_HELD_BYTES and self.transport:
            self.transport.pause_reading()

    def unread_bytes(self) -> int:
        """Return how many received bytes this process has not parsed."""
        return len(self.recv_buffer) + len(self._held)

    def _submit(self, data: bytes, *, keep: bool = True) -> bool:  # noqa: C901, PLR0912 - a call costs time
        """Submit a packet's usage; return False, and consume no byte, if Sanic must handle it.

        `keep`: the packet may be kept until the next one. A request in more packets has a deadline
        at Sanic, which a client that sends byte by byte must not avoid.
        """
        end = data.find(b"\r\n\r\n", 0, self.max_head_bytes)
        if end <= 0 or not (self._is_idle or self._ask_idle()):
            return False
        context = self.context
        authorizer = context.authorizer
        head = data[:end]
        parts = self._last_parts
        if head != self._last_head:
            parts = self.head_reader.read(head)
            if parts and len(head) <= MAX_LAST_HEAD_BYTES and parts[2:5] == _NO_VALUES:
                self._last_head, self._last_parts = head, parts
        if parts is None:
            return False
        length, credentials, authorization, request_id, key, is_batch = parts
        settings = context.settings
        limit, longest = settings.max_body, LONG_BYTES
        if is_batch:
            limit, longest = settings.max_batch_bytes, MAX_STEP_BYTES
        # A longer body is decoded in steps, in turn with those of other clients.
        if length > limit or length > longest or context.draining:
            return False
        # Most posts of an open installation have no credential and no limit.
        is_anonymous = authorization is None and not credentials
        unlimited_writer = authorizer.unlimited_writer if is_anonymous else None
        credential = unlimited_writer or authorizer.find_writer(authorization, credentials)
        if credential is None:
            return False
        if head is self.head_reader.unknown_head:
            self.head_reader.learn(head, parts)
        body = data[end + 4 :]
        # If the body does not begin with this bracket, its meaning depends on the Content-Type.
        if body and body[0] != (_BATCH_START if is_batch else _START):
            return False
        if len(body) != length:
            if len(body) < length and keep and end + 4 + length <= FREE_BYTES:
                self._keep_start(data)
                return True
            # A device may send a line end after its body.
            body = body[:length] if body[length:] in EMPTY_LINES else b""
        if not body:
            return False
        if is_batch:
            batch = None if key else self._make_batch(body, credential, request_id)
            if batch is None:
                return False
            write: FastPathWrite = batch
        else:
            line = decode_fast(body, strict=context.strict)
            if line is None:
                return False
            client = UNLIMITED if unlimited_writer else self._admit(credential, line)
            if client is None:
                return False
            write = FastPathWrite(self, line, request_id or generate(), client)
            if key is not None:
                write.key = make_key(key, PATH, [line], credential.id)
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

    def _make_batch(
        self, body: bytes, credential: Credential, request_id: bytes | None
    ) -> FastPathBatch | None:
        """Return the write of a batch without patients to check, or a limit; else None."""
        began = monotonic()
        context = self.context
        settings = context.settings
        if credential.patient_id is not None or context.authorizer.is_limited(credential):
            return None
        lines = decode_flat_array(
            body, settings.max_batch_items, settings.max_body, strict=context.strict
        )
        if lines is None:
            return None
        stamp = context.make_stamp(credential)
        if stamp:
            lines = [line + stamp for line in lines]
        write = FastPathBatch(self, lines, request_id or generate(), is_stamped=bool(stamp))
        write.created_at = began  # the time to decode them is a part of the response's
        return write

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

    def _ask_idle(self) -> bool:
        """Return whether Sanic neither has nor may have a part of an earlier request."""
        transport, http = self.transport, self.http
        if self.recv_buffer or not self._task or not self._can_write.is_set():
            return False
        if transport is None or transport.is_closing():
            return False
        if http is None:
            return True  # Sanic's task has not started
        # After an error the rest of a body may be unread although the response is sent.
        if http.stage is not _IDLE or not http.keep_alive or http.request_body:
            return False
        http.empty_lines = 0  # Sanic counts them since the last request
        self._is_idle = True
        return True

    def pause_writing(self) -> None:
        """Ask again before the next request whether the client reads its responses."""
        self._is_idle = False
        super().pause_writing()  # type: ignore[no-untyped-call]

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
            self._pass_on_start()
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a pending request as Sanic's route does."""
        if self._pending:
            self._pending.record_disconnect()
            self._pending = None
        self._take_start()
        self._held.clear()
        super().connection_lost(exc)

    def check_timeouts(self) -> None:
        """Keep Sanic, which got no request, from closing the connection as idle."""
        if self._pending or self._start:
            self._time = monotonic()
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def close_if_idle(self) -> bool:
        """Close the connection unless a request is pending or arriving."""
        return False if self._pending or self._start else bool(super().close_if_idle())
