"""An answer as a whole message."""

from sanic.headers import format_http1_response
from sanic.response import HTTPResponse

from busyapi.web.dates import http_date
from busyapi.web.request_id import HEADER


def whole(answer: HTTPResponse, request_id: bytes, *, close: bool) -> bytes:
    """Render any answer as a whole message, as Sanic does."""
    body = answer.body or b""
    answer.headers[HEADER] = request_id.decode()
    answer.headers["date"] = http_date()
    answer.headers["content-length"] = str(len(body))
    answer.headers["connection"] = "close" if close else "keep-alive"
    return format_http1_response(answer.status, answer.processed_headers) + body
