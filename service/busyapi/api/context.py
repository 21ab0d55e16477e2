"""What every handler of one API process needs, and the end of every request."""

from dataclasses import dataclass, field
from time import perf_counter

from sanic import Request
from sanic.http import Http
from sanic.response import HTTPResponse

from busyapi.api.archive_client import ArchiveClient
from busyapi.api.auth import RequestAuthorizer
from busyapi.api.cors import Cors
from busyapi.api.decode_scheduler import DecodeScheduler
from busyapi.commit.pool import CommitterPool
from busyapi.errors import OutcomeUnknown, Refused
from busyapi.settings import Settings
from busyapi.stream.reader import PartitionReader
from busyapi.telemetry.metrics import ApiMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.web.connections import ConnectionTable

ABORTED_STATUS = 500


@dataclass
class ApiContext:
    """One API process."""

    settings: Settings
    committers: CommitterPool
    readers: list[PartitionReader]
    archive: ArchiveClient
    metrics: ApiMetrics
    authorizer: RequestAuthorizer | None = None
    connections: ConnectionTable = field(default_factory=ConnectionTable)
    cors: Cors | None = None
    budget: ReceiveBudget = field(default_factory=ReceiveBudget)
    draining: bool = False
    fatal: BaseException | None = None
    strict: bool = field(init=False)
    decode_scheduler: DecodeScheduler = field(init=False)
    seeded_once: bool = False
    """Readiness waits for the first checked connection, and never falls back for overload."""

    def __post_init__(self) -> None:
        self.strict = self.settings.validation == "strict"
        self.decode_scheduler = DecodeScheduler(self.settings.commit_deadline)

    def start_timer(self, request: Request) -> None:
        """Take the time from here: the body is whole, which may have taken a device long."""
        if isinstance(request.stream, Http):
            request.stream.perft0 = perf_counter()

    def record_response(self, request: Request, answer: HTTPResponse) -> HTTPResponse:
        """Count an answer."""
        self._record_status(request, answer.status)
        return answer

    def record_error(self, request: Request, error: Exception, status: int) -> None:
        """Count an error's answer."""
        self.record_refusal(error)
        self._record_status(request, status)

    def record_refusal(self, error: Exception) -> None:
        """Count why a usage was not, or perhaps not, stored."""
        if isinstance(error, Refused | OutcomeUnknown):
            self.metrics.refused[type(error).__name__].inc()

    def record_abort(self, request: Request) -> None:
        """Count a request that gets no answer from us: the device sees a failure of ours."""
        self._record_status(request, ABORTED_STATUS)

    def _record_status(self, request: Request, status: int) -> None:
        seconds = 0.0
        stream = request.stream
        if isinstance(stream, Http):
            if self.draining:
                # The last answer on its connection.
                stream.keep_alive = False
            # Set by Sanic when the header had been read, and by `start_timer`. There is none of
            # what never arrived whole.
            if stream.perft0 is not None:
                seconds = perf_counter() - stream.perft0
        # The route's pattern, not the path: paths hold ids and are without bound.
        route = request.route
        self.metrics.requests.route(f"/{route.path}" if route else "none").record(status, seconds)
