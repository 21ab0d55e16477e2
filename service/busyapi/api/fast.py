"""The fast lane: one whole `POST /api/usages` in one packet, without Sanic's machinery.

    packet ──whole, plain, valid──> lane ──> answer
       └──────anything else──> Sanic, untouched

Most of what a request costs is Sanic's task, header objects, router and response. Here the packet
is looked at once: when it is exactly one ordinary request that Sanic's route would answer with 201,
its usage goes to the lane, and the answer is written from the lane's callback. Every other packet
goes to Sanic as it came, so that route stays the reference for whatever is odd or wrong, and
`tests/service/test_fast_lane.py` holds the two against each other.

While a usage is under way, what else arrives on its connection is held back, so that answers keep
the order of their requests. A client that hangs up cancels nothing: the lane owns the usage.
"""

from time import monotonic
from typing import Any, ClassVar

import sanic
import structlog
from sanic.http.constants import Stage

from busyapi.api.answers import created
from busyapi.api.problems import problem
from busyapi.api.request_head import LENGTHS, MOST_HEAD, remembered
from busyapi.api.service import NO_ANSWER, Service
from busyapi.commit.batch import Group
from busyapi.decode.usage import quick_line
from busyapi.errors import Refused
from busyapi.ids import Seq, usage_id
from busyapi.metrics import Answered
from busyapi.web.answers import whole
from busyapi.web.http1 import EMPTY_LINES
from busyapi.web.problems import CLIENT_GONE, response
from busyapi.web.protocol import DeadlineProtocol
from busyapi.web.request_id import cut, made

log = structlog.get_logger()

SANIC_VERSION = "25.12.1"
"""Whose protocol this was held against. With another the fast lane stays off."""

ROUTE = "/api/usages"
MOST_HELD = 65_536
"""Bytes of later requests on one connection, before it is read no further."""

_IDLE = Stage.IDLE  # Python 3.11 takes its time to look an enum's member up


class FastProtocol(DeadlineProtocol):
    """Sanic's protocol with the fast lane before it."""

    service: ClassVar[Service]
    answered: ClassVar[Answered]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._under_way: UnderWay | None = None
        self._held = bytearray()
        self._end_held = False

    def data_received(self, data: bytes) -> None:
        """Take a packet, hold it back, or leave it to Sanic."""
        if self._under_way:
            self._hold(data)
        elif not self._take(data):
            super().data_received(data)

    def eof_received(self) -> bool:
        """Hold the end of a client's requests back as what else arrives."""
        if self._under_way:
            self._end_held = True
            return True
        return super().eof_received()

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.count_held()
        if len(self._held) >= MOST_HELD and self.transport:
            self.transport.pause_reading()

    def buffered(self) -> int:
        """Return how many bytes wait to be read by this process."""
        return len(self.recv_buffer) + len(self._held)

    def _take(self, data: bytes) -> bool:
        """Submit the usage of a packet; False: not a byte of it was taken."""
        end = data.find(b"\r\n\r\n", 0, MOST_HEAD)
        if end <= 0 or self._busy():
            return False
        head, request_id = data[:end], None
        length = LENGTHS.get(head)
        if length is None:
            head, request_id = cut(head.removeprefix(b"\r\n"))
            length = remembered(head)
        service = self.service
        if length is None or length > service.settings.max_body or service.draining:
            return False
        body = data[end + 4 :]
        if len(body) != length:
            # A device may print its body with a line end.
            body = body[:length] if body[length:] in EMPTY_LINES else b""
        # Without this bracket the Content-Type decides.
        line = quick_line(body, strict=service.strict) if body[:1] == b"{" else None
        if line is None:
            return False
        under_way = UnderWay(self, line, request_id or made())
        try:
            under_way.partition = service.lanes.submit(under_way)
        except Refused:
            return False  # Sanic asks again, and says why
        self._under_way = under_way
        return True

    def _busy(self) -> bool:
        """Whether Sanic has, or may have, something of an earlier request on this connection."""
        if self.recv_buffer or not self._task or not self._can_write.is_set():
            return True
        transport, http = self.transport, self.http
        if transport is None or transport.is_closing():
            return True
        if http is None:
            return False  # its task has not started
        # After an error the rest of a body may be unread although the answer is out.
        if http.stage is not _IDLE or not http.keep_alive or http.unread:
            return True
        http.empty_lines = 0  # counted from the last request
        return False

    def answer(self, message: bytes, *, close: bool) -> None:
        """Send the answer of what was under way, and go on with what was held back."""
        self._under_way = None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(message)
        self._time = monotonic()  # Sanic's keep-alive counts from here
        if close:
            self.close()
        elif self._held:
            held = bytes(self._held)
            self._held.clear()
            self.count_held()
            # So much that reading was paused is more than one ordinary request: Sanic gets it,
            # and reads on when it has used it.
            self.data_received(held)
        if self._end_held and not self._under_way:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the request that was under way as Sanic's route does."""
        if self._under_way:
            self._under_way.gone()
            self._under_way = None
        self._held.clear()
        super().connection_lost(exc)

    def check_timeouts(self) -> None:
        """Keep Sanic, which saw no request, from taking the connection for an idle one."""
        if self._under_way:
            self._time = monotonic()
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def close_if_idle(self) -> bool:
        """Close the connection unless a request is under way."""
        return False if self._under_way else bool(super().close_if_idle())


class UnderWay(Group):
    """A request in the lane, which is answered without a handler."""

    __slots__ = ("_protocol", "partition", "request_id", "wanted")

    wanted: bool

    def __init__(self, protocol: FastProtocol, line: bytes, request_id: bytes) -> None:
        # As the parent's would; that one costs twice as much, and there is one a request.
        self.lines = (line,)
        self.count = 1
        self.size = len(line)
        self.key = None
        self.born = monotonic()
        self._protocol = protocol
        self.wanted = True
        self.partition = 0
        self.request_id = request_id

    def answer(self, last: int) -> None:
        """Answer 201."""
        if not self.wanted:
            return
        try:
            protocol = self._protocol
            service = protocol.service
            usage = usage_id(Seq(last), self.partition, service.settings.partitions)
            close = service.draining
            self._count(201)
            protocol.answer(created(usage, self.request_id, close=close), close=close)
        except Exception as error:  # noqa: BLE001 - it would end the lane for everybody
            self._broken(error)

    def fail(self, error: Exception) -> None:
        """Answer why not."""
        if not self.wanted:
            return
        try:
            service = self._protocol.service
            found = problem(error, self.request_id.decode())
            close = service.draining
            service.refusal(error)
            self._count(found.status)
            message = whole(response(found), self.request_id, close=close)
            self._protocol.answer(message, close=close)
        except Exception as broken:  # noqa: BLE001 - likewise
            self._broken(broken)

    def gone(self) -> None:
        """The connection ended: whatever the lane says later is for nobody."""
        # Without a transport it was cut off by us, at a stop that took too long.
        self._count(CLIENT_GONE if self._protocol.transport else NO_ANSWER)

    def _count(self, status: int) -> None:
        self.wanted = False
        self._protocol.answered.add(status, monotonic() - self.born)

    def _broken(self, error: Exception) -> None:
        self.wanted = False
        kind, request_id = type(error).__name__, self.request_id.decode()
        log.error("unexpected_error", error=kind, where="fast lane", request_id=request_id)
        self._protocol.abort()


def protocol_for(service: Service, version: str = sanic.__version__) -> type[DeadlineProtocol]:
    """Make the protocol of this process: with the fast lane where it may be used.

    Credentials and rates are looked at by Sanic's route alone.
    """
    settings = service.settings
    fast = settings.fast_lane == "on" and service.guard is None
    if fast and version != SANIC_VERSION:
        log.warning("fast_lane_off", sanic=version, known=SANIC_VERSION)
        fast = False
    members = {
        "port": service.connections,
        "max_header": settings.max_header,
        "deadline": settings.request_deadline,
        "budget": service.budget,
        "service": service,
        "answered": service.metrics.requests.of(ROUTE),
        "cut_off": staticmethod(service.cut_off),
    }
    return type("Protocol", (FastProtocol if fast else DeadlineProtocol,), members)
