"""Sanic's HTTP/1.1, with its parsing replaced where RFC 9110 and 9112 require something else.

`StrictHttp` is Sanic's side of one connection. Sanic parses heads and chunks with `int` and
`split`, which accept more than the RFC allows; `StrictHttp` uses `head` and `chunks` instead.
`HalfCloseProtocol` is the connection itself: a client that shuts down its sending side still gets
its responses.
"""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from sanic.exceptions import BadRequest, ExpectationFailed, PayloadTooLarge
from sanic.http import Http
from sanic.http.constants import Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.response import BaseHTTPResponse
from sanic.server import HttpProtocol

from busyapi.web.chunks import ChunkDecoder, MalformedChunk
from busyapi.web.dates import current_http_date
from busyapi.web.head import Head, MalformedHead, may_be_head, parse_head

MAX_EMPTY_LINES = 8
"""Skipped before a request line. A device may send a line end after its body."""
EMPTY_LINES = (b"\r\n", b"\n")
LINGER_SECONDS = 1.0
"""How long a client may still send after an error response."""

_CHUNKED = "chunked"


class NoRequestYet(Exception):
    """Only empty lines were received; no request has begun."""


class StrictHttp(Http):
    """Sanic's side of one connection, with strict framing and a Date in each response."""

    __slots__ = ("_chunks", "empty_lines")

    protocol: Any
    request_body: Any
    request_bytes: Any
    request_bytes_left: Any
    _chunks: ChunkDecoder

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.request_body = None  # Sanic sets it only with the first request
        self.empty_lines = 0

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Add the Date to a response."""
        response.headers["date"] = current_http_date()
        return super().respond(response)

    async def http1(self) -> None:
        """Serve the requests of the connection until it should close."""
        await super().http1()  # type: ignore[no-untyped-call]
        if self.response is not None and self.response.status >= HTTPStatus.BAD_REQUEST:
            await self.protocol.linger()

    async def head_response_ignored(  # type: ignore[override]
        self,
        data: bytes,
        end_stream: bool,  # noqa: FBT001
    ) -> None:
        """Send no body in a response to HEAD; unlike Sanic's method, this one can be awaited.

        Sanic awaits it if the client disconnected before the header was sent.
        """
        super().head_response_ignored(data, end_stream)

    async def error_response(self, exception: Exception) -> None:
        """Answer an error; if no request has begun, wait for the next one."""
        if not isinstance(exception, NoRequestYet):
            await super().error_response(exception)

    async def http1_request_header(self) -> None:
        """Receive a head and create its request."""
        self._skip_empty_lines()
        raw = await self._receive_head()
        try:
            head = parse_head(raw)
        except MalformedHead:
            raise BadRequest("Bad Request") from None
        self.keep_alive, self.head_only = head.keep_alive, head.method == "HEAD"
        protocol = self.protocol
        request = protocol.request_class(
            url_bytes=head.target,
            headers=head.headers,
            head=raw,
            version=head.version,
            method=head.method,
            transport=protocol.transport,
            app=protocol.app,
        )
        if request._parsed_url.path is None:  # noqa: SLF001 - routing it would fail
            raise BadRequest("Bad Request")
        protocol.request_class._current.set(request)  # noqa: SLF001 - as Sanic does
        self.request, request.stream = request, self
        protocol.state["requests_count"] += 1
        self._prepare_body(head)

    def _skip_empty_lines(self) -> None:
        buf = self.recv_buffer
        while buf.startswith(EMPTY_LINES):
            del buf[: buf.index(b"\n") + 1]
            self.empty_lines += 1
            if self.empty_lines > MAX_EMPTY_LINES:
                raise BadRequest("Bad Request")
        if not buf:
            # Wait as for the first byte: the deadline of a request has not started.
            self.stage = Stage.IDLE
            raise NoRequestYet

    async def _receive_head(self) -> bytes:
        buf, limit, start = self.recv_buffer, self.protocol.max_header, 0
        while (end := buf.find(b"\r\n\r\n", start)) < 0 or end > limit:
            # Only the first `limit` bytes count, so the response does not depend on the packets.
            if buf != b"\r" and not may_be_head(buf, start, limit):
                raise BadRequest("Bad Request")
            if len(buf) > limit + 3:
                raise PayloadTooLarge("Request header exceeds the size limit")
            start = max(0, len(buf) - 3)
            await self._receive_more()
            if start == 0:
                self._skip_empty_lines()  # a CRLF may arrive in two packets
        raw = bytes(buf[:end])
        del buf[: end + 4]
        self.empty_lines = 0
        return raw

    def _prepare_body(self, head: Head) -> None:
        self.request_bytes_left = self.request_bytes = 0
        if not head.chunked and head.length is None:
            return
        if head.expect is not None:
            if head.expect.lower() != "100-continue":
                raise ExpectationFailed("Unknown Expect")
            self.expecting_continue = True
        if head.chunked:
            self.request_body = _CHUNKED
            self._chunks = ChunkDecoder(self.protocol.max_header)
        else:
            self.request_body = True
            self.request_bytes_left = self.request_bytes = head.length

    async def read(self) -> bytes | None:
        """Receive a part of the body; return None at its end."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        if self.request_body == _CHUNKED:
            return await self._read_chunks()
        self._check_size()
        if not self.request_bytes_left:
            self.request_body = None
            return None
        buf = self.recv_buffer
        if not buf:
            await self._receive_more()
        left = self.request_bytes_left
        part = bytes(buf if len(buf) <= left else buf[:left])  # a slice would be a second copy
        del buf[: len(part)]
        self.request_bytes_left -= len(part)
        return part

    async def _read_chunks(self) -> bytes | None:
        buf, chunks = self.recv_buffer, self._chunks
        while True:
            announced_before = chunks.announced_bytes
            try:
                used, part = chunks.decode(bytes(buf))
            except MalformedChunk:
                self.keep_alive = False
                raise BadRequest("Bad chunked encoding") from None
            del buf[:used]
            self.request_bytes += chunks.announced_bytes - announced_before
            self._check_size()
            if chunks.done:
                self.request_body = None
            if part or chunks.done:
                return part
            if not chunks.failed:
                await self._receive_more()

    def _check_size(self) -> None:
        if self.request_bytes > self.request_max_size:
            self.keep_alive = False
            raise PayloadTooLarge("Request body exceeds the size limit")


class HalfCloseProtocol(HttpProtocol):
    """Sanic's protocol, for clients that shut down their sending side and wait (half close).

    Every request that was complete before gets its response, then the connection closes. An
    incomplete request is dropped: none of its usages is stored.
    """

    __slots__ = ("_at_end",)  # Sanic's metaclass gives instances no dictionary

    HTTP_CLASS = StrictHttp
    max_header: ClassVar[int] = 8192
    """The maximum bytes of a head, and of a body's chunk extensions and trailer fields."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._at_end = False

    def eof_received(self) -> bool:
        """Keep the connection open until its requests are answered."""
        self._at_end = True
        self._data_received.set()  # wakes `receive_more`
        return self.transport is not None and bool(self.transport.can_write_eof())  # not with TLS

    async def receive_more(self) -> None:
        """Wait for more bytes; close the connection if the client has shut down its side."""
        transport = self.transport
        if self._at_end and transport:
            # Sanic's `close` would drop the transport before this task is cancelled.
            transport.close()
            if transport.get_write_buffer_size():
                # A client that does not read its responses must not keep the connection.
                self.loop.call_later(self.app.config.GRACEFUL_TCP_CLOSE_TIMEOUT, transport.abort)
            await asyncio.Event().wait()  # until `connection_lost` cancels this task
        self.resume_reading()
        self._data_received.clear()
        await self._data_received.wait()

    def resume_reading(self) -> None:
        """Resume reading, which Sanic pauses while it holds many bytes."""
        transport: Any = self.transport
        transport.resume_reading()

    async def linger(self) -> None:
        """Shut down the sending side, and drop what still arrives (RFC 9112, section 9.6).

        Closing at once would reset the connection of a client that is still sending, and its TCP
        would discard the response.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._at_end:
            return
        if not transport.can_write_eof():
            return  # TLS has no half close
        transport.write_eof()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._at_end:
                    self.recv_buffer.clear()
                    await self.receive_more()
        except TimeoutError:
            pass
