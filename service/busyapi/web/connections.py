"""The connections of one port: their limit, and what happens at the limit.

    new ──below the limit───────────────> served
    new ──at the limit, one is quiet────> the quiet one is closed, the new one is served
    new ──at the limit, all are active──> a short refusal, then closed

A connection is quiet if it has never sent a byte, is idle for a second, has sent only a part of a
header, or has been sending a body for long. The oldest is closed first. So silent connections keep
their places only until others need them. A client that sends its request at once has time for it:
its connection is closed only after a flood has replaced all older quiet ones. nginx treats its
keep-alive connections in the same way.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar

from sanic.http.constants import Stage

from busyapi.web.http1 import HalfCloseProtocol

QUIET_SECONDS = 1.0
"""Most clients send their next request within this time; an earlier close could collide with it."""
MAX_CHECKED = 16
"""Connections checked for each new one, so the cost of an accept does not grow with the table."""
MAX_LINGERING = 256
"""Connections of one port that gave up their place and still get a response; further ones are
aborted at once. Otherwise a flood would hold, over the limit, all that it opens in a second."""
UNLIMITED = 1_000_000


class ConnectionTable:
    """The connections of one port, and their limit."""

    def __init__(
        self,
        max_connections: int = UNLIMITED,
        refuse: Callable[[Any, asyncio.AbstractEventLoop], None] | None = None,
        *,
        has_grace_period: bool = True,
    ) -> None:
        self.max_connections = max_connections
        self.has_grace_period = has_grace_period
        """Whether a connection is quiet only after a second, and a slow request after longer."""
        self.live: OrderedDict[TrackedProtocol, None] = OrderedDict()
        self._lingering: set[TrackedProtocol] = set()
        self.on_refused: Callable[[], object] = int
        """Called for each refusal."""
        self._refuse = refuse

    def admit(self, protocol: "TrackedProtocol", transport: Any) -> bool:
        """Return whether a new connection is served; refuse it if not."""
        if len(self.live) >= self.max_connections and not self._make_room():
            self.on_refused()
            if self._refuse:
                self._refuse(transport, protocol.loop)
            else:
                transport.abort()
            return False
        self.live[protocol] = None
        return True

    def remove(self, protocol: "TrackedProtocol") -> None:
        """Remove a closed connection."""
        self.live.pop(protocol, None)
        self._lingering.discard(protocol)

    def allow_lingering(self, protocol: "TrackedProtocol") -> bool:
        """Return whether a connection that gives up its place may stay open for its response."""
        if len(self._lingering) >= MAX_LINGERING:
            return False
        self._lingering.add(protocol)
        return True

    def _make_room(self) -> bool:
        idle_since = monotonic() - (QUIET_SECONDS if self.has_grace_period else 0)
        for _ in range(min(MAX_CHECKED, len(self.live))):
            oldest = next(iter(self.live))
            if oldest.make_room(idle_since):
                del self.live[oldest]
                return True
            self.live.move_to_end(oldest)
        return False


class TrackedProtocol(HalfCloseProtocol):
    """Sanic's protocol, with each connection in its port's table."""

    connection_table: ClassVar[ConnectionTable] = ConnectionTable()
    all_live: ClassVar[set["TrackedProtocol"]] = set()
    """The connections of all ports."""

    def connection_made(self, transport: Any) -> None:
        """Serve the connection, unless the table refuses it."""
        if not self.connection_table.admit(self, transport):
            return
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.all_live.add(self)
        self._time = self._accepted_at = monotonic()
        self.on_accepted()

    def on_accepted(self) -> None:
        """Start work for a connection that is served."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the table."""
        self.connection_table.remove(self)
        self.all_live.discard(self)
        if self.conn_info:  # None if it was refused
            super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _setup_connection(self, *arguments: Any, **more: Any) -> None:
        super()._setup_connection(*arguments, **more)  # type: ignore[no-untyped-call]
        self._accepted_at = self._time

    def make_room(self, idle_since: float) -> bool:
        """Close it if it never sent a byte or is idle since this time; return whether it was."""
        http = self.http
        if http is not None and http.stage is not Stage.IDLE:
            return False
        if self._time > idle_since and self._time != self._accepted_at:
            return False
        return bool(self.close_if_idle())


def close_idle_connections() -> None:
    """Close every connection without a request.

    Sanic does so only after the server has closed, but from Python 3.12 asyncio's own loop waits
    there for every connection (cpython#104344).
    """
    for connection in list(TrackedProtocol.all_live):
        connection.close_if_idle()
