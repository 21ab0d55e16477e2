"""What every handler of one API process needs, and the end of every request."""

from dataclasses import dataclass, field
from time import perf_counter

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.archive import ArchiveDoor
from busyapi.api.guard import Guard
from busyapi.commit.lanes import Lanes
from busyapi.errors import Refused, StoredUnknown
from busyapi.metrics import ApiMetrics
from busyapi.settings import Settings
from busyapi.stream.reading import Reader


@dataclass
class Service:
    """One API process."""

    settings: Settings
    lanes: Lanes
    readers: list[Reader]
    archive: ArchiveDoor
    metrics: ApiMetrics
    guard: Guard | None = None
    draining: bool = False
    fatal: BaseException | None = None
    strict: bool = field(init=False)
    seeded_once: bool = False
    """Readiness waits for the first checked connection, and never falls back for overload."""

    def __post_init__(self) -> None:
        self.strict = self.settings.validation == "strict"

    def done(self, request: Request, answer: HTTPResponse) -> HTTPResponse:
        """Count an answer. While draining it is the last one on its connection."""
        stream = request.stream
        if stream is not None:
            # Set by Sanic when the header had been read.
            started = stream.perft0
            if self.draining:
                stream.keep_alive = False
            if started is not None:
                self._count(request, answer.status, perf_counter() - started)
        return answer

    def failed(self, request: Request, error: Exception, status: int) -> None:
        """Count an error's answer."""
        if isinstance(error, Refused | StoredUnknown):
            self.metrics.refused.labels(type(error).__name__).inc()
        started = request.stream.perft0 if request.stream else None
        if self.draining and request.stream:
            request.stream.keep_alive = False
        self._count(request, status, perf_counter() - started if started else 0.0)

    def _count(self, request: Request, status: int, seconds: float) -> None:
        # The route's pattern, not the path: paths hold ids and are without bound.
        route = request.route
        self.metrics.requests.done(f"/{route.path}" if route else "none", status, seconds)
