"""The parts that the handlers of one API process share, and how each request is recorded."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar

from sanic import Request
from sanic.http import Http
from sanic.response import HTTPResponse

from busyapi.api.archive_client import ArchiveClient
from busyapi.api.audit import REFUSED_STATUSES, AuditTrail
from busyapi.api.auth import RequestAuthorizer
from busyapi.api.cors import Cors
from busyapi.api.decode_scheduler import DecodeScheduler
from busyapi.api.portion_pool import PortionPool
from busyapi.api.query_turns import QueryTurns
from busyapi.api.sequential_lookups import SequentialLookups
from busyapi.api.stamper import Stamper
from busyapi.api.usage_finder import UsageFinder
from busyapi.auth.credential import Credential
from busyapi.commit.pool import CommitterPool
from busyapi.errors import OutcomeUnknown, Refused
from busyapi.settings import Settings
from busyapi.telemetry.metric_defs_api import QUERY_ROUTE
from busyapi.telemetry.metrics import ApiMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.web.connections import ConnectionTable

ABORTED_STATUS = 500
LIST_PATH = "/api/usages"
READ_METHODS = frozenset({"GET", "HEAD"})

BackgroundTask = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled, such as what keeps credentials current."""

_P = ParamSpec("_P")
_R = TypeVar("_R", bound=Request)


@dataclass
class ApiContext:
    """The shared state of one API process."""

    settings: Settings
    committers: CommitterPool
    finder: UsageFinder
    archive: ArchiveClient
    metrics: ApiMetrics
    authorizer: RequestAuthorizer = field(default_factory=RequestAuthorizer)
    stamper: Stamper | None = None
    """None: usages get no stamps."""
    portion_pool: PortionPool | None = None
    background: list[BackgroundTask] = field(default_factory=list)
    audit: AuditTrail | None = None
    queries: QueryTurns = field(default_factory=QueryTurns)
    sequential_lookups: SequentialLookups = field(default_factory=SequentialLookups)
    connections: ConnectionTable = field(default_factory=ConnectionTable)
    cors: Cors | None = None
    budget: ReceiveBudget = field(default_factory=ReceiveBudget)
    draining: bool = False
    fatal: BaseException | None = None
    strict: bool = field(init=False)
    decode_scheduler: DecodeScheduler = field(init=False)
    was_ready: bool = False
    """Whether a connection has ever passed its checks. Readiness waits for the first one only."""

    def __post_init__(self) -> None:
        self.strict = self.settings.validation == "strict"
        self.decode_scheduler = DecodeScheduler(self.settings.commit_deadline)

    def make_stamp(self, credential: Credential) -> bytes:
        """Return the stamp to put behind a credential's usages, b"" for none."""
        return self.stamper.encode(credential) if self.stamper and credential.id else b""

    def start_timer(self, request: Request) -> None:
        """Restart the timer once the body is complete: a device may have sent it slowly."""
        if isinstance(request.stream, Http):
            request.stream.perft0 = perf_counter()

    def record_response(self, request: Request, response: HTTPResponse) -> None:
        """Count a handler's response."""
        self._record_status(request, response.status)

    def record_error(self, request: Request, error: Exception, status: int) -> None:
        """Count the response to an exception."""
        self.record_refusal(error)
        self._record_status(request, status)
        if self.audit and status in REFUSED_STATUSES:
            name = getattr(request.ctx, "credential_name", "")
            self.audit.record_refusal(request, name, status)

    def record_refusal(self, error: Exception) -> None:
        """Count the reason why a usage was not stored, or may not be stored."""
        if isinstance(error, Refused | OutcomeUnknown):
            self.metrics.refused[type(error).__name__].inc()

    def record_abort(self, request: Request) -> None:
        """Count a request that gets no response: the device sees a server failure."""
        self._record_status(request, ABORTED_STATUS)

    def _record_status(self, request: Request, status: int) -> None:
        seconds = 0.0
        stream = request.stream
        if isinstance(stream, Http):
            if self.draining:
                # This response is the last one on its connection.
                stream.keep_alive = False
            # Set by Sanic after the header, and by `start_timer`. None if the request never
            # arrived completely.
            if stream.perft0 is not None:
                seconds = perf_counter() - stream.perft0
        # The route's pattern, not the path: paths contain ids, so their number has no bound.
        route = f"/{request.route.path}" if request.route else "none"
        if route == LIST_PATH and request.method in READ_METHODS:
            route = QUERY_ROUTE
        self.metrics.requests.route(route).record(status, seconds)


def make_handler(
    handle: Callable[Concatenate[ApiContext, _R, _P], Awaitable[HTTPResponse]],
) -> Callable[Concatenate[_R, _P], Coroutine[Any, Any, HTTPResponse]]:
    """Return a Sanic handler that passes the context to a function and records its response.

    An exception is recorded by `ApiProblemHandler`, which also gets those that no handler raised:
    of unknown paths, and of requests that are malformed or too slow.
    """

    @wraps(handle)
    async def handle_request(request: _R, /, *args: _P.args, **kwargs: _P.kwargs) -> HTTPResponse:
        context: ApiContext = request.app.ctx.context
        response = await handle(context, request, *args, **kwargs)
        context.record_response(request, response)
        return response

    return handle_request
