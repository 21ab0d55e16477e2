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
    BodyTooLarge,
    BusyapiError,
    IdempotencyKeyConflict,
    InvalidRequest,
    InvalidUsage,
    MalformedBody,
    OutcomeUnknown,
    Refused,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)
from busyapi.web.problems import Problem, ProblemHandler, map_general_error

log = structlog.get_logger()

STATUSES: dict[type[InvalidRequest] | type[IdempotencyKeyConflict], int] = {
    MalformedBody: 400,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    UnsupportedContentEncoding: 415,
    InvalidUsage: 422,
    IdempotencyKeyConflict: 422,
}

TIMEOUT_DETAIL = "The response took too long. The usage may already be stored."
RETRY_SECONDS = (1, 5)
LOG_INTERVAL_SECONDS = 10.0
"""A reason of 503s has a line of log once in this time."""
_logged: dict[str, tuple[float, int]] = {}
"""When that was, and how many were answered so since. Reasons are names of exceptions of ours."""


def map_error(error: Exception, request_id: str = "") -> Problem:
    """Say what an exception means to the one who sent the request; log what is ours to mend."""
    match error:
        case Refused() | OutcomeUnknown():
            stored = "no" if isinstance(error, Refused) else "unknown"
            return _service_unavailable(error, _public_detail(error), stored, request_id)
        case InvalidUsage():
            faults = [fault._asdict() for fault in error.errors]
            return Problem(422, str(error), errors=faults)
        case UnsupportedContentEncoding():
            # Not with another 415 (RFC 9110, section 12.5.3): it says which of the two it was.
            return Problem(415, str(error), {"Accept-Encoding": "gzip"})
        case InvalidRequest() | IdempotencyKeyConflict():
            return Problem(STATUSES[type(error)], str(error))
        case ServiceUnavailable():
            return _service_unavailable(error, TIMEOUT_DETAIL, "unknown", request_id)
    found = map_general_error(error, request_id)
    if found.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        found.detail += " The usage may already be stored."
    return found


def _public_detail(error: BusyapiError) -> str:
    # The message of this one says where Redis is or how it is set up: for operators alone.
    return str(type(error)())


def _service_unavailable(error: Exception, detail: str, stored: str, request_id: str) -> Problem:
    _log_rejection(type(error).__name__, stored, request_id)
    # Jitter: devices that were refused together must not come back together.
    seconds = random.randint(*RETRY_SECONDS)  # noqa: S311
    return Problem(503, detail, {"Retry-After": str(seconds)}, stored=stored)


def _log_rejection(reason: str, stored: str, request_id: str) -> None:
    # Counted here and not by `logs.SamplingHandler`: in an overload that costs more than the answer
    # does.
    now = monotonic()
    last, since = _logged.get(reason, (-inf, 0))
    if now - last < LOG_INTERVAL_SECONDS:
        _logged[reason] = (last, since + 1)
        return
    _logged[reason] = (now, 0)
    log.warning(
        "write_rejected", reason=reason, stored=stored, requests=since + 1, request_id=request_id
    )


class ApiProblemHandler(ProblemHandler):
    """The same for the API, whose errors are counted."""

    def map_error(self, request: Request, error: Exception, request_id: str) -> Problem:
        """Return what an exception means, and count it."""
        found = map_error(error, request_id)
        request.app.ctx.context.record_error(request, error, found.status)
        return found
