"""The response to a connection over the limit: it is cheap, and the client gets it.

    connected ──first bytes──> response, half close ──client closes, or one second──> closed

Closing at once would reset the connection, because the request is unread, and the client would
never see the response. A refusal needs no task, parser or buffer, and lasts at most one second.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from sanic.response import HTTPResponse

from busyapi.web.problems import Problem, make_retry_headers, render_problem
from busyapi.web.request_id import generate
from busyapi.web.responses import render_response

LINGER_SECONDS = 1.0
MAX_REFUSALS = 256
"""Refusals at one time on one port. Further connections are closed without a response."""
FULL_DETAIL = "This process has reached its limit of connections."

_PROBE = re.compile(rb"GET (/[a-z]+) HTTP/1\.[01]\r\n")

ProbeResponses = Mapping[bytes, Callable[[], HTTPResponse]]


class RefusedConnection(asyncio.Protocol):
    """One connection that gets a fixed response."""

    def __init__(
        self,
        transport: Any,
        loop: asyncio.AbstractEventLoop,
        make_message: Callable[[bytes], bytes],
        open_refusals: set["RefusedConnection"],
    ) -> None:
        self._transport = transport
        self._make_message: Callable[[bytes], bytes] | None = make_message
        self._open_refusals = open_refusals
        self._close_handle = loop.call_later(LINGER_SECONDS, self._close)
        open_refusals.add(self)

    def data_received(self, data: bytes) -> None:
        """Answer the first bytes, and drop all later ones."""
        if self._make_message:
            make_message, self._make_message = self._make_message, None
            self._transport.write(make_message(data))
            if self._transport.can_write_eof():  # TLS has no half close
                self._transport.write_eof()

    def _close(self) -> None:
        if self._make_message:
            self._transport.write(self._make_message(b""))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the open refusals."""
        self._close_handle.cancel()
        self._open_refusals.discard(self)


class ConnectionRefuser:
    """Refuses connections of one port; `members` are those of the problem that it sends.

    Probes are still answered: a process at its limit is alive and ready, and a restart would only
    move its clients to the next process.
    """

    def __init__(self, probes: ProbeResponses, **members: Any) -> None:
        self._probes = probes
        self._members = members
        self._open_refusals: set[RefusedConnection] = set()

    def __call__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse one connection."""
        if len(self._open_refusals) < MAX_REFUSALS:
            transport.set_protocol(
                RefusedConnection(transport, loop, self._make_message, self._open_refusals)
            )
        else:
            transport.abort()

    def _make_message(self, data: bytes) -> bytes:
        match = _PROBE.match(data)
        if match and (probe := self._probes.get(match[1])):
            return render_response(probe(), generate(), close=True)
        problem = Problem(503, FULL_DETAIL, make_retry_headers(), **self._members)
        return render_response(render_problem(problem), generate(), close=True)
