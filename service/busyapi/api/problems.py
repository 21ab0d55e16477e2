"""What each exception means to the client that sent the request.

No payload value, patient id or stack trace leaves here: details are sentences of ours.
"""

import random
from http import HTTPStatus
from math import inf
from time import monotonic

import structlog
from sanic import Request
from sanic.exceptions import ServiceUnavailable

from busyapi.errors import (
    BadUsage,
    BodyTooLarge,
    BusyapiError,
    KeyReused,
    MalformedBody,
    NotAUsage,
    Refused,
    StoredUnknown,
    UnsupportedCoding,
    UnsupportedMedia,
)
from busyapi.web.problems import Problem, Problems, general_problem

log = structlog.get_logger()

STATUSES: dict[type[BadUsage] | type[KeyReused], int] = {
    MalformedBody: 400,
    BodyTooLarge: 413,
    UnsupportedMedia: 415,
    UnsupportedCoding: 415,
    NotAUsage: 422,
    KeyReused: 422,
}

LATE = "The answer took too long; the usage may be stored."
RETRY_SECONDS = (1, 5)
SAY_SECONDS = 10.0
"""A reason of 503s has a line of log once in this time."""
_said: dict[str, tuple[float, int]] = {}
"""When that was, and how many were answered so since. Reasons are names of exceptions of ours."""


def problem(error: Exception, request_id: str = "") -> Problem:
    """Say what an exception means to the one who sent the request; log what is ours to mend."""
    match error:
        case Refused() | StoredUnknown():
            stored = "no" if isinstance(error, Refused) else "unknown"
            return _unavailable(error, _general(error), stored, request_id)
        case NotAUsage():
            faults = [fault._asdict() for fault in error.faults]
            return Problem(422, str(error), errors=faults)
        case UnsupportedCoding():
            # Not with another 415 (RFC 9110, section 12.5.3): it says which of the two it was.
            return Problem(415, str(error), {"Accept-Encoding": "gzip"})
        case BadUsage() | KeyReused():
            return Problem(STATUSES[type(error)], str(error))
        case ServiceUnavailable():
            return _unavailable(error, LATE, "unknown", request_id)
    found = general_problem(error, request_id)
    if found.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        found.detail += " The usage may be stored."
    return found


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


class ApiProblems(Problems):
    """The same for the API, whose errors are counted."""

    def problem(self, request: Request, error: Exception, request_id: str) -> Problem:
        """Return what an exception means, and count it."""
        found = problem(error, request_id)
        request.app.ctx.service.failed(request, error, found.status)
        return found
