"""Every error of every port as application/problem+json (RFC 9457), Sanic's own included.

No payload value, patient id or stack trace leaves here: details are sentences of ours.
"""

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from sanic import Request
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from busyapi.errors import Refused, place
from busyapi.web.protocol import NumberedHttp

log = structlog.get_logger()

# What Sanic says of its own errors may quote the request.
SANIC_DETAILS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing at this path.",
    405: "This path does not take this method; Allow says which it takes.",
    408: "The request did not arrive whole in time.",
    413: "The request is larger than the limit.",
    417: "Only `Expect: 100-continue` is known.",
    503: "The answer took too long.",
}
CLIENT_GONE = 499
NOT_CACHED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""On usages, and on errors: a cache may keep a 404 of its own accord, and its id may be given out
a moment later."""
RETRY_SECONDS = "2"


class Problem(Exception):
    """An error with its status, for what has no exception of its own."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members


def response(problem: Problem) -> HTTPResponse:
    """Render a problem."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase
        if problem.status != CLIENT_GONE
        else "Gone away",
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    return HTTPResponse(
        msgspec.json.encode(body),
        status=problem.status,
        headers=NOT_CACHED | problem.headers,
        content_type="application/problem+json",
    )


def general_problem(error: Exception, request_id: str = "") -> Problem:
    """Return what an exception means on any port; log one that nothing expects."""
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(503, str(type(error)()), {"Retry-After": RETRY_SECONDS})
        case RequestCancelled():
            # No client reads this answer; the number is what nginx made of it.
            return Problem(CLIENT_GONE, "The client went away.")
        case SanicException():
            return _from_sanic(error)
    log.error(
        "unexpected_error",
        error=type(error).__name__,
        where=place(error),
        request_id=request_id,
    )
    return Problem(500, "Something went wrong here.")


def _from_sanic(error: SanicException) -> Problem:
    status = error.status_code or 500
    detail = SANIC_DETAILS.get(status, "The request cannot be answered.")
    headers = {name: str(value) for name, value in (error.headers or {}).items()}
    if "Allow" in headers:  # in the order of a set
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    return Problem(status, detail, headers)


class Problems(ErrorHandler):
    """Sanic's door for every exception, its own included."""

    def problem(self, request: Request, error: Exception, request_id: str) -> Problem:
        """Return what an exception means."""
        return general_problem(error, request_id)

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Answer an exception."""
        stream = request.stream
        numbered = stream if isinstance(stream, NumberedHttp) else None
        found = self.problem(request, exception, numbered.request_id if numbered else "")
        if numbered:
            numbered.read_on()
        return response(found)

    @staticmethod
    def log(request: Request, exception: Exception) -> None:
        """Log nothing: Sanic would print the request and a stack trace."""
