"""How a response becomes a complete message without Sanic's task."""

from sanic.headers import format_http1_response
from sanic.response import HTTPResponse

from busyapi.web.dates import current_http_date
from busyapi.web.request_id import HEADER


def render_response(response: HTTPResponse, request_id: bytes, *, close: bool) -> bytes:
    """Render a response as a complete message, as Sanic does."""
    body = response.body or b""
    response.headers[HEADER] = request_id.decode()
    response.headers["date"] = current_http_date()
    response.headers["content-length"] = str(len(body))
    response.headers["connection"] = "close" if close else "keep-alive"
    return format_http1_response(response.status, response.processed_headers) + body
