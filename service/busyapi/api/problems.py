"""Every error as application/problem+json (RFC 9457).

No payload value, patient id or stack trace leaves here: details are sentences of ours.
"""

import random
from http import HTTPStatus
from math import inf
from time import monotonic
from typing import Any

import msgspec
import structlog
from sanic import Request
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from busyapi.api.protocol import NumberedHttp
from busyapi.errors import (
    BadUsage,
    BodyTooLarge,
    BusyapiError,
    KeyReused,
    MalformedBody,
    NotAUsage,
    Refused,
    StoredUnknown,
    UnsupportedMedia,
    place,
)

log = structlog.get_logger()

STATUSES: dict[type[BadUsage] | type[KeyReused], int] = {
    MalformedBody: 400,
    BodyTooLarge: 413,
    UnsupportedMedia: 415,
    NotAUsage: 422,
    KeyReused: 422,
}

# What Sanic says of its own errors may quote the request.
SANIC_DETAILS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing at this path.",
    405: "This path does not take this method; Allow says which it takes.",
    408: "The request did not arrive whole in time.",
    413: "The request is larger than the limit.",
    417: "Only `Expect: 100-continue` is known.",
    503: "The answer took too long; the usage may be stored.",
}

RETRY_SECONDS = (1, 5)
SAY_SECONDS = 10.0
"""A reason of 503s has a line of log once in this time."""
_said: dict[str, tuple[float, int]] = {}
"""When that was, and how many were answered so since. Reasons are names of exceptions of ours."""
CLIENT_GONE = 499


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
        headers=problem.headers,
        content_type="application/problem+json",
    )


def problem(error: Exception, request_id: str = "") -> Problem:
    """Say what an exception means to the one who sent the request; log what is ours to mend."""
    match error:
        case Problem():
            return error
        case Refused() | StoredUnknown():
            stored = "no" if isinstance(error, Refused) else "unknown"
            return _unavailable(error, _general(error), stored, request_id)
        case NotAUsage():
            faults = [fault._asdict() for fault in error.faults]
            return Problem(422, str(error), errors=faults)
        case BadUsage() | KeyReused():
            return Problem(STATUSES[type(error)], str(error))
        case RequestCancelled():
            # Nobody reads this answer; the number is what nginx made of it.
            return Problem(CLIENT_GONE, "The client went away.")
        case SanicException():
            return _from_sanic(error, request_id)
    log.error(
        "unexpected_error",
        error=type(error).__name__,
        where=place(error),
        request_id=request_id,
    )
    return Problem(500, "Something went wrong here. The usage may be stored.")


def _general(error: BusyapiError) -> str:
    # The message of this one says where Redis is or how it is set up: for operators alone.
    return str(type(error)())


def _unavailable(error: Exception, detail: str, stored: str, request_id: str) -> Problem:
    _say(type(error).__name__, stored, request_id)
    # Jitter: devices that were refused together must not come back together.
    seconds = random.randint(*RETRY_SECONDS)  # noqa: S311
    return Problem(503, detail, {"Retry-After": str(seconds)}, stored=stored)


def _say(reason: str, stored: str, request_id: str) -> None:
    # Counted here and not by `logs.Sampled`: in an overload that costs more than the answer does.
    now = monotonic()
    last, since = _said.get(reason, (-inf, 0))
    if now - last < SAY_SECONDS:
        _said[reason] = (last, since + 1)
        return
    _said[reason] = (now, 0)
    log.warning(
        "unavailable", reason=reason, stored=stored, requests=since + 1, request_id=request_id
    )


def _from_sanic(error: SanicException, request_id: str) -> Problem:
    status = error.status_code or 500
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _unavailable(error, SANIC_DETAILS[503], "unknown", request_id)
    detail = SANIC_DETAILS.get(status, "The request cannot be answered.")
    headers = {name: str(value) for name, value in (error.headers or {}).items()}
    return Problem(status, detail, headers)


class Problems(ErrorHandler):
    """Sanic's door for every exception, its own included."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Answer an exception."""
        stream = request.stream
        numbered = stream if isinstance(stream, NumberedHttp) else None
        found = problem(exception, numbered.request_id if numbered else "")
        service = request.app.ctx.service
        service.failed(request, exception, found.status)
        if numbered:
            numbered.read_on()
        return response(found)

    @staticmethod
    def log(request: Request, exception: Exception) -> None:
        """Log nothing: Sanic would print the request and a stack trace."""
