"""What every handler of one API process needs, and the end of every request."""

from dataclasses import dataclass, field
from time import perf_counter

from sanic import Request
from sanic.http import Http
from sanic.response import HTTPResponse

from busyapi.api.archive import ArchiveDoor
from busyapi.api.cors import Cors
from busyapi.api.guard import Guard
from busyapi.api.turns import Turns
from busyapi.commit.lanes import Lanes
from busyapi.errors import Refused, StoredUnknown
from busyapi.metrics import ApiMetrics
from busyapi.settings import Settings
from busyapi.stream.reading import Reader
from busyapi.web.budget import Budget
from busyapi.web.connections import Connections

NO_ANSWER = 500


@dataclass
class Service:
    """One API process."""

    settings: Settings
    lanes: Lanes
    readers: list[Reader]
    archive: ArchiveDoor
    metrics: ApiMetrics
    guard: Guard | None = None
    connections: Connections = field(default_factory=Connections)
    cors: Cors | None = None
    budget: Budget = field(default_factory=Budget)
    draining: bool = False
    fatal: BaseException | None = None
    strict: bool = field(init=False)
    turns: Turns = field(init=False)
    seeded_once: bool = False
    """Readiness waits for the first checked connection, and never falls back for overload."""

    def __post_init__(self) -> None:
        self.strict = self.settings.validation == "strict"
        self.turns = Turns(self.settings.commit_deadline)

    def arrived(self, request: Request) -> None:
        """Take the time from here: the body is whole, which may have taken a device long."""
        if isinstance(request.stream, Http):
            request.stream.perft0 = perf_counter()

    def done(self, request: Request, answer: HTTPResponse) -> HTTPResponse:
        """Count an answer."""
        self._count(request, answer.status)
        return answer

    def failed(self, request: Request, error: Exception, status: int) -> None:
        """Count an error's answer."""
        self.refusal(error)
        self._count(request, status)

    def refusal(self, error: Exception) -> None:
        """Count why a usage was not, or perhaps not, stored."""
        if isinstance(error, Refused | StoredUnknown):
            self.metrics.refused[type(error).__name__].inc()

    def cut_off(self, request: Request) -> None:
        """Count a request that gets no answer from us: the device sees a failure of ours."""
        self._count(request, NO_ANSWER)

    def _count(self, request: Request, status: int) -> None:
        seconds = 0.0
        stream = request.stream
        if isinstance(stream, Http):
            if self.draining:
                # The last answer on its connection.
                stream.keep_alive = False
            # Set by Sanic when the header had been read, and by `arrived`. There is none of what
            # never arrived whole.
            if stream.perft0 is not None:
                seconds = perf_counter() - stream.perft0
        # The route's pattern, not the path: paths hold ids and are without bound.
        route = request.route
        self.metrics.requests.of(f"/{route.path}" if route else "none").add(status, seconds)
