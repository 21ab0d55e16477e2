"""Errors of every port as application/problem+json (RFC 9457), including Sanic's own.

A problem contains no payload value, patient id or stack trace: its detail is a fixed sentence.
"""

import random
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from sanic import Request
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from busyapi.errors import Refused, locate_error
from busyapi.web.protocol import RequestTrackingHttp

log = structlog.get_logger()

# Sanic's own messages may quote the request.
DETAILS_BY_STATUS = {
    400: "The request is not well-formed HTTP.",
    404: "No resource has this path.",
    405: "This path does not accept this method. `Allow` lists the methods it accepts.",
    408: "The complete request did not arrive in time.",
    413: "The request is larger than the limit.",
    417: "Only `Expect: 100-continue` is supported.",
    503: "The response took too long.",
}
CLIENT_CLOSED_REQUEST = 499
NO_STORE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""For usages and errors: by default a cache may keep a 404, and the next usage may get that id."""
RETRY_AFTER_SECONDS = (1, 5)
"""The range of Retry-After in a 503 of any port: random, so that clients that were refused together
do not retry together."""


class Problem(Exception):
    """An error with its status, for cases without an exception class."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members


def render_problem(problem: Problem) -> HTTPResponse:
    """Return the response for a problem."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase
        if problem.status != CLIENT_CLOSED_REQUEST
        else "Client Closed Request",
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    return HTTPResponse(
        msgspec.json.encode(body),
        status=problem.status,
        headers=NO_STORE_HEADERS | problem.headers,
        content_type="application/problem+json",
    )


def make_retry_headers() -> dict[str, str]:
    """Return the header that says when a client may retry."""
    return {"Retry-After": str(random.randint(*RETRY_AFTER_SECONDS))}  # noqa: S311


def map_general_error(error: Exception, request_id: str = "") -> Problem:
    """Return the problem for an exception on any port; log an unexpected one."""
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(503, str(type(error)()), make_retry_headers())
        case RequestCancelled():
            # No client reads this response; nginx introduced the status.
            return Problem(CLIENT_CLOSED_REQUEST, "The client closed the connection.")
        case SanicException():
            return _from_sanic(error)
    log.error(
        "unexpected_error",
        error=type(error).__name__,
        where=locate_error(error),
        request_id=request_id,
    )
    return Problem(500, "An internal error occurred.")


def _from_sanic(error: SanicException) -> Problem:
    status = error.status_code or 500
    detail = DETAILS_BY_STATUS.get(status, "The request cannot be processed.")
    headers = {name: str(value) for name, value in (error.headers or {}).items()}
    if "Allow" in headers:  # Sanic builds it from a set, in no fixed order
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    return Problem(status, detail, headers)


class ProblemHandler(ErrorHandler):
    """Sanic's handler of every exception, including its own."""

    def map_error(self, request: Request, error: Exception, request_id: str) -> Problem:
        """Return the problem for an exception."""
        return map_general_error(error, request_id)

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Return the response for an exception."""
        stream = request.stream
        http = stream if isinstance(stream, RequestTrackingHttp) else None
        problem = self.map_error(request, exception, http.request_id if http else "")
        if http:
            http.skip_body()
        return render_problem(problem)

    @staticmethod
    def log(request: Request, exception: Exception) -> None:
        """Log nothing; Sanic's method would print the request and a stack trace."""
