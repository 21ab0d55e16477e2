"""JSON responses, and the 201 of a single usage, which avoids Sanic's general code.

`HTTPResponse` builds a multidict, sanitises each header and encodes it again: a fifth of the cost
of a request. The 201 has six headers whose values are generated here, or checked. It relies on two
properties of the pinned Sanic: `http1_response_header` sets content-length and connection in
`headers`, and sends the result of `processed_headers`. `RequestTrackingHttp` adds the request's id.
"""

from collections.abc import Iterable
from functools import lru_cache
from time import time
from typing import Any

import msgspec
from sanic.response import HTTPResponse

from busyapi.ids import UsageId
from busyapi.web.dates import format_http_date
from busyapi.web.request_id import HEADER

JSON = "application/json"
_CONTENT_TYPE = (b"content-type", b"application/json")
_KEEP_ALIVE = (b"connection", b"keep-alive")
_CLOSE = (b"connection", b"close")


class CreatedResponse(HTTPResponse):
    """A 201 with one id, and headers about the client's limits."""

    __slots__ = ("_limits", "_location")

    def __init__(self, usage_id: UsageId, limits: dict[str, str]) -> None:
        # Without the parent's: its cost is avoided here.
        number = b"%d" % usage_id
        self.asgi = False
        self.body = b'{"id":%b}' % number
        self.content_type = JSON
        self.stream = None
        self.status = 201
        self.headers: Any = {}
        self._cookies = None
        self._location = b"/api/usages/" + number
        self._limits = limits

    @property
    def processed_headers(self) -> Iterable[tuple[bytes, bytes]]:  # type: ignore[override]
        """Return the headers as they are sent."""
        headers = self.headers
        return (
            _CONTENT_TYPE,
            (b"date", headers["date"].encode()),
            (b"location", self._location),
            (b"x-request-id", headers[HEADER].encode()),
            (b"content-length", b"%d" % headers["content-length"]),
            _KEEP_ALIVE if headers["connection"] == "keep-alive" else _CLOSE,
            *((name.encode(), value.encode()) for name, value in self._limits.items()),
        )


def render_created(
    usage_id: UsageId, request_id: bytes, limits: bytes = b"", *, close: bool
) -> bytes:
    """Render a complete message, byte for byte the one that `CreatedResponse` leads to.

    `limits` are lines about the client's limits, as `rate_headers.render_lines` returns them.
    """
    number = b"%d" % usage_id
    return _created_template(int(time())) % (
        number,
        request_id,
        7 + len(number),
        b"close" if close else b"keep-alive",
        limits,
        number,
    )


@lru_cache(1)
def _created_template(second: int) -> bytes:
    """Render the part that all such messages of one second share."""
    date = format_http_date(second).encode()
    return (
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ndate: " + date + b"\r\n"
        b"location: /api/usages/%b\r\nx-request-id: %b\r\ncontent-length: %d\r\n"
        b'connection: %b%b\r\n\r\n{"id":%b}'
    )


def make_json_response(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> HTTPResponse:
    """Return a JSON response."""
    return HTTPResponse(msgspec.json.encode(body), status, headers, JSON)
