"""The answer to one connection too many: cheap to give, and certain to arrive.

    connected ──its first bytes──> answer, end of our side ──the client's end, or a second──> closed

Closing at once would reset the connection, for the request is not read, and the client would
never see the answer. It costs no task, no parser and no buffer; a second is its bound.
"""

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from sanic.response import HTTPResponse

from busyapi.web.problems import Problem, render_problem
from busyapi.web.request_id import generate
from busyapi.web.responses import render_response

LINGER_SECONDS = 1.0
MAX_REFUSALS = 256
"""Refusals under way on one port; further connections are cut off without a word."""
RETRY_SECONDS = (1, 5)
FULL_DETAIL = "This process has as many connections as it may have."

_PROBE = re.compile(rb"GET (/[a-z]+) HTTP/1\.[01]\r\n")

ProbeResponses = Mapping[bytes, Callable[[], HTTPResponse]]


class RefusedConnection(asyncio.Protocol):
    """One connection that is answered without being served."""

    def __init__(
        self,
        transport: Any,
        loop: asyncio.AbstractEventLoop,
        message: Callable[[bytes], bytes],
        live: set["RefusedConnection"],
    ) -> None:
        self._transport = transport
        self._make_message: Callable[[bytes], bytes] | None = message
        self._open_refusals = live
        self._close_handle = loop.call_later(LINGER_SECONDS, self._close)
        live.add(self)

    def data_received(self, data: bytes) -> None:
        """Answer the first bytes, and pass over the others."""
        if self._make_message:
            message, self._make_message = self._make_message, None
            self._transport.write(message(data))
            self._transport.write_eof()

    def _close(self) -> None:
        if self._make_message:
            self._transport.write(self._make_message(b""))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._close_handle.cancel()
        self._open_refusals.discard(self)


class ConnectionRefuser:
    """Turns connections of one port away; `members` are those of its problem.

    Probes are answered all the same: a full process is neither dead nor unready, and a restart
    would only hand its clients to the next one.
    """

    def __init__(self, probes: ProbeResponses, **members: Any) -> None:
        self._probes = probes
        self._members = members
        self._open_refusals: set[RefusedConnection] = set()

    def __call__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Turn one away."""
        if len(self._open_refusals) < MAX_REFUSALS:
            transport.set_protocol(
                RefusedConnection(transport, loop, self._make_message, self._open_refusals)
            )
        else:
            transport.abort()

    def _make_message(self, first: bytes) -> bytes:
        asked = _PROBE.match(first)
        if asked and (probe := self._probes.get(asked[1])):
            return render_response(probe(), generate(), close=True)
        seconds = random.randint(*RETRY_SECONDS)  # noqa: S311
        problem = Problem(503, FULL_DETAIL, {"Retry-After": str(seconds)}, **self._members)
        return render_response(render_problem(problem), generate(), close=True)
