"""How each exception becomes the problem that the client gets.

A problem contains no payload value, patient id or stack trace: its detail is a fixed sentence.
"""

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
from busyapi.web.problems import Problem, ProblemHandler, make_retry_headers, map_general_error

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
READ_METHODS = {"GET", "HEAD"}
LOG_INTERVAL_SECONDS = 10.0
"""503s of one reason are logged at most once in this time."""
_logged: dict[tuple[str, str], tuple[float, int]] = {}
"""By kind of request and reason (an exception class): the last time, and the 503s since."""


def map_error(error: Exception, request_id: str = "", *, is_read: bool = False) -> Problem:
    """Return the problem for an exception; log one that an operator must see."""
    match error:
        case Refused() | OutcomeUnknown():
            stored = "no" if isinstance(error, Refused) else "unknown"
            _log_rejection(type(error).__name__, stored, request_id, is_read=is_read)
            return _service_unavailable(_public_detail(error), stored)
        case InvalidUsage():
            errors = [entry._asdict() for entry in error.errors]
            return Problem(422, str(error), errors=errors)
        case UnsupportedContentEncoding():
            # Only this 415 has the header (RFC 9110, section 12.5.3): it distinguishes the two.
            return Problem(415, str(error), {"Accept-Encoding": "gzip"})
        case InvalidRequest() | IdempotencyKeyConflict():
            return Problem(STATUSES[type(error)], str(error))
        case ServiceUnavailable():
            _log_rejection(type(error).__name__, "unknown", request_id, is_read=is_read)
            return _service_unavailable(TIMEOUT_DETAIL, "unknown")
    problem = map_general_error(error, request_id)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        problem.detail += " The usage may already be stored."
    return problem


def _public_detail(error: BusyapiError) -> str:
    # The error's own message names Redis's address or settings, which are for operators only.
    return str(type(error)())


def _service_unavailable(detail: str, stored: str) -> Problem:
    return Problem(503, detail, make_retry_headers(), stored=stored)


def _log_rejection(reason: str, stored: str, request_id: str, *, is_read: bool) -> None:
    # Sampled here, not by `logs.SamplingHandler`: in an overload that would cost more than the
    # response.
    now = monotonic()
    key = ("read" if is_read else "write", reason)
    last, count = _logged.get(key, (-inf, 0))
    if now - last < LOG_INTERVAL_SECONDS:
        _logged[key] = (last, count + 1)
        return
    _logged[key] = (now, 0)
    requests = count + 1
    if is_read:
        log.warning("read_rejected", reason=reason, requests=requests, request_id=request_id)
    else:
        log.warning(
            "write_rejected",
            reason=reason,
            stored=stored,
            requests=requests,
            request_id=request_id,
        )


class ApiProblemHandler(ProblemHandler):
    """The problem handler of the API; it counts each error."""

    def map_error(self, request: Request, error: Exception, request_id: str) -> Problem:
        """Return the problem for an exception, and count it."""
        is_read = request.method in READ_METHODS
        problem = map_error(error, request_id, is_read=is_read)
        request.app.ctx.context.record_error(request, error, problem.status)
        return problem
