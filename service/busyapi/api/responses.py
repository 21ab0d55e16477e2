"""JSON responses, and the 201 of stored usages, which avoids Sanic's general code.

`HTTPResponse` builds a multidict, sanitises each header and encodes it again: a fifth of the cost
of a request. The 201 has few headers, whose values are generated here or checked. It relies on two
properties of the pinned Sanic: `http1_response_header` sets content-length and connection in
`headers`, and sends the result of `processed_headers`. `RequestTrackingHttp` adds the request's id.
"""

from collections.abc import Iterable
from functools import lru_cache
from time import time
from typing import Any

import msgspec
from sanic.response import HTTPResponse

from busyapi.ids import MAX_ID, UsageId
from busyapi.web.dates import format_http_date
from busyapi.web.request_id import HEADER

JSON = "application/json"
_CONTENT_TYPE = (b"content-type", b"application/json")
_KEEP_ALIVE = (b"connection", b"keep-alive")
_CLOSE = (b"connection", b"close")
_REPLAYED = (b"idempotency-replayed", b"true")
"""An earlier request with the same Idempotency-Key stored the usages."""
_LENGTH_LINES = [
    b"\r\ncontent-length: %d\r\nconnection: " % len(f'{{"id":{"9" * digits}}}')
    for digits in range(len(str(MAX_ID)) + 1)
]
"""The lines about the length of a body, by the digits of its id."""


class CreatedResponse(HTTPResponse):
    """A 201 with a JSON body, headers of its own, and headers about the client's limits."""

    __slots__ = ("_limits", "_own")

    def __init__(
        self, body: bytes, own: tuple[tuple[bytes, bytes], ...], limits: dict[str, str]
    ) -> None:
        # Without the parent's: its cost is avoided here.
        self.asgi = False
        self.body = body
        self.content_type = JSON
        self.stream = None
        self.status = 201
        self.headers: Any = {}
        self._cookies = None
        self._own = own
        self._limits = tuple((name.encode(), value.encode()) for name, value in limits.items())

    @property
    def processed_headers(self) -> Iterable[tuple[bytes, bytes]]:  # type: ignore[override]
        """Return the headers as they are sent."""
        headers = self.headers
        return (
            _CONTENT_TYPE,
            (b"date", headers["date"].encode()),
            *self._own,
            (b"x-request-id", headers[HEADER].encode()),
            (b"content-length", str(headers["content-length"]).encode()),
            _KEEP_ALIVE if headers["connection"] == "keep-alive" else _CLOSE,
            *self._limits,
        )


def make_single_response(
    usage_id: UsageId, limits: dict[str, str], *, replayed: bool = False
) -> CreatedResponse:
    """Return the 201 of a single usage."""
    number = b"%d" % usage_id
    own = ((b"location", b"/api/usages/" + number), *[_REPLAYED] * replayed)
    return CreatedResponse(b'{"id":%b}' % number, own, limits)


def make_batch_response(
    usage_ids: list[UsageId], limits: dict[str, str], *, replayed: bool = False
) -> CreatedResponse:
    """Return the 201 of a batch."""
    body = msgspec.json.encode({"ids": usage_ids})
    return CreatedResponse(body, (_REPLAYED,) * replayed, limits)


def render_created(
    usage_id: UsageId,
    request_id: bytes,
    limits: bytes = b"",
    *,
    replayed: bool = False,
    close: bool,
) -> bytes:
    """Render a complete message, byte for byte the one that `make_single_response` leads to.

    `limits` are lines about the client's limits, as `rate_headers.render_lines` returns them.
    """
    number = b"%d" % usage_id
    # Joined, because `%` takes longer.
    return b"".join(
        (
            _render_created_start(int(time())),
            number,
            b"\r\nidempotency-replayed: true\r\nx-request-id: "
            if replayed
            else b"\r\nx-request-id: ",
            request_id,
            _LENGTH_LINES[len(number)],
            b"close" if close else b"keep-alive",
            limits,
            b'\r\n\r\n{"id":',
            number,
            b"}",
        )
    )


@lru_cache(1)
def _render_created_start(second: int) -> bytes:
    """Render the start of all such messages of one second."""
    date = format_http_date(second).encode()
    return (
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ndate: " + date + b"\r\n"
        b"location: /api/usages/"
    )


def make_json_response(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> HTTPResponse:
    """Return a JSON response."""
    return HTTPResponse(msgspec.json.encode(body), status, headers, JSON)
