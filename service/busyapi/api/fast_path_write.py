"""The usage of a request on the fast path, and its response."""

from time import monotonic
from typing import Any, ClassVar, Protocol

import structlog

from busyapi.api.client_limits import UNLIMITED, Client
from busyapi.api.context import ABORTED_STATUS, ApiContext
from busyapi.api.problems import map_error
from busyapi.api.responses import make_batch_response, render_created
from busyapi.commit.pending import PendingWrite
from busyapi.telemetry.metrics import RouteTally
from busyapi.web.problems import CLIENT_CLOSED_REQUEST, render_problem
from busyapi.web.responses import render_response

log = structlog.get_logger()


class FastPathConnection(Protocol):
    """The connection of a request: `FastPathProtocol`."""

    context: ClassVar[ApiContext]
    route_tally: ClassVar[RouteTally]
    batch_tally: ClassVar[RouteTally]
    transport: Any

    def send_response(self, message: bytes, now: float, *, close: bool) -> None:
        """Send the pending write's response."""

    def abort(self) -> None:
        """Abort the connection."""


class FastPathWrite(PendingWrite):
    """The usage of a request that is answered without a handler."""

    __slots__ = ("_protocol", "_tally", "client", "is_waiting", "request_id")

    is_waiting: bool

    def __init__(
        self,
        protocol: FastPathConnection,
        line: bytes,
        request_id: bytes,
        client: Client = UNLIMITED,
    ) -> None:
        # The same as the parent's, at half of its cost, which each request would pay.
        self.lines = (line,)
        self.count = 1
        self.size = len(line)
        self.key = None
        self.is_stamped = False
        self.created_at = monotonic()
        self._protocol = protocol
        self._tally = protocol.route_tally
        self.is_waiting = True
        self.client = client
        self.partition = 0
        self.request_id = request_id

    def add_stamp(self, stamp: bytes) -> None:
        """Put a stamp behind the usage."""
        self.lines = (self.lines[0] + stamp,)
        self.size += len(stamp)
        self.is_stamped = True

    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Send a 201."""
        if not self.is_waiting:
            return
        try:
            protocol = self._protocol
            close = protocol.context.draining
            now = self._record_status(201)
            message = self._render(protocol.context, last, replayed, close)
            protocol.send_response(message, now, close=close)
        except Exception as error:  # noqa: BLE001 - it would end the committer for all requests
            self._abort(error)

    def _render(self, context: ApiContext, last: int, replayed: bool, close: bool) -> bytes:  # noqa: FBT001 - each post calls it
        usage = context.committers.make_id(last, self.partition)
        limits = context.authorizer.render_limits(*self.client) if self.client else b""
        return render_created(usage, self.request_id, limits, replayed=replayed, close=close)

    def fail(self, error: Exception) -> None:
        """Send the problem for an error."""
        if not self.is_waiting:
            return
        try:
            context = self._protocol.context
            problem = map_error(error, self.request_id.decode())
            close = context.draining
            context.record_refusal(error)
            now = self._record_status(problem.status)
            message = render_response(render_problem(problem), self.request_id, close=close)
            self._protocol.send_response(message, now, close=close)
        except Exception as defect:  # noqa: BLE001 - it would end the committer too
            self._abort(defect)

    def record_disconnect(self) -> None:
        """Count the request of a connection that ended; its response is dropped."""
        # Without a transport this process cut it, because a stop took too long.
        self._record_status(CLIENT_CLOSED_REQUEST if self._protocol.transport else ABORTED_STATUS)

    def _record_status(self, status: int) -> float:
        """Count the response, and return the time."""
        self.is_waiting = False
        now = monotonic()
        self._tally.record(status, now - self.created_at)
        return now

    def _abort(self, error: Exception) -> None:
        self.is_waiting = False
        kind, request_id = type(error).__name__, self.request_id.decode()
        log.error("unexpected_error", error=kind, where="fast path", request_id=request_id)
        self._protocol.abort()


class FastPathBatch(FastPathWrite):
    """The usages of a batch that is answered without a handler."""

    __slots__ = ()

    def __init__(
        self,
        protocol: FastPathConnection,
        lines: list[bytes],
        request_id: bytes,
        *,
        is_stamped: bool,
    ) -> None:
        PendingWrite.__init__(self, lines, is_stamped=is_stamped)
        self._protocol = protocol
        self._tally = protocol.batch_tally
        self.is_waiting = True
        self.client = UNLIMITED
        self.request_id = request_id

    def _render(self, context: ApiContext, last: int, replayed: bool, close: bool) -> bytes:  # noqa: FBT001 - each post calls it
        ids = context.committers.make_ids(last, self.count, self.partition)
        response = make_batch_response(ids, {}, replayed=replayed)
        return render_response(response, self.request_id, close=close)
