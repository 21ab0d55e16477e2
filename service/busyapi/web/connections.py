"""The connections of one port: how many there may be, and what becomes of one too many.

    new ──below the bound──────────────> served
    new ──at it, and one is quiet──────> the quiet one is closed, the new one is served
    new ──at it, and all are at work───> a short refusal, then closed

A quiet connection has not said a word, is idle for a second, has sent a part of a header, or a body
for long; the oldest goes first. So silent connections hold their places only until others need
them, and whoever sends a request at once has as long for it as a flood takes to fill the bound.
nginx does likewise with its keep-alive connections.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar

from sanic.http.constants import Stage

from busyapi.web.http1 import HalfCloseProtocol

QUIET_SECONDS = 1.0
"""A client's next request is usually sent within this time, so an earlier close would meet it."""
MAX_CHECKED = 16
"""Connections looked at for each new one: an accept costs the same however many there are."""
MAX_LINGERING = 256
"""Connections of one port that made room and still hear why; further ones are cut off at once. A
flood would otherwise hold as many as it opens in a second, beyond the bound."""
UNLIMITED = 1_000_000


class ConnectionTable:
    """The connections of one port."""

    def __init__(
        self,
        max_connections: int = UNLIMITED,
        refuse: Callable[[Any, asyncio.AbstractEventLoop], None] | None = None,
        *,
        has_grace_period: bool = True,
    ) -> None:
        self.max_connections = max_connections
        self.has_grace_period = has_grace_period
        """Whether a connection has a second, and an arriving request longer, before it is quiet."""
        self.live: OrderedDict[TrackedProtocol, None] = OrderedDict()
        self._lingering: set[TrackedProtocol] = set()
        self.on_refused: Callable[[], object] = int
        """Called at each refusal, to count it."""
        self._refuse = refuse

    def admit(self, protocol: "TrackedProtocol", transport: Any) -> bool:
        """Say whether a new connection is served; refuse it otherwise."""
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
        """Take an ended connection out."""
        self.live.pop(protocol, None)
        self._lingering.discard(protocol)

    def allow_lingering(self, protocol: "TrackedProtocol") -> bool:
        """Say whether a connection that makes room may stay for its answer until it is lost."""
        if len(self._lingering) >= MAX_LINGERING:
            return False
        self._lingering.add(protocol)
        return True

    def _make_room(self) -> bool:
        before = monotonic() - (QUIET_SECONDS if self.has_grace_period else 0)
        for _ in range(min(MAX_CHECKED, len(self.live))):
            oldest = next(iter(self.live))
            if oldest.make_room(before):
                del self.live[oldest]
                return True
            self.live.move_to_end(oldest)
        return False


class TrackedProtocol(HalfCloseProtocol):
    """Sanic's protocol; its port knows its connections."""

    connection_table: ClassVar[ConnectionTable] = ConnectionTable()
    all_live: ClassVar[set["TrackedProtocol"]] = set()
    """Those of all ports."""

    def connection_made(self, transport: Any) -> None:
        """Serve the connection, or leave it to a refusal."""
        if not self.connection_table.admit(self, transport):
            return
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.all_live.add(self)
        self._time = self._accepted_at = monotonic()
        self.on_accepted()

    def on_accepted(self) -> None:
        """Begin with a connection that is served."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.connection_table.remove(self)
        self.all_live.discard(self)
        if self.conn_info:  # None: it was cut off before it was served
            super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _setup_connection(self, *arguments: Any, **more: Any) -> None:
        super()._setup_connection(*arguments, **more)  # type: ignore[no-untyped-call]
        self._accepted_at = self._time

    def make_room(self, before: float) -> bool:
        """Close the connection if it never said a word or is idle since before this time."""
        http = self.http
        if http is not None and http.stage is not Stage.IDLE:
            return False
        if self._time > before and self._time != self._accepted_at:
            return False
        return bool(self.close_if_idle())


def close_idle_connections() -> None:
    """Close every connection that has no request under way.

    Sanic does so after the server has closed, and asyncio's own loop, from Python 3.12 on, waits
    there for every connection (cpython#104344).
    """
    for each in list(TrackedProtocol.all_live):
        each.close_if_idle()
