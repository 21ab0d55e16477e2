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

from busyapi.web.answers import whole
from busyapi.web.problems import Problem, response
from busyapi.web.request_id import made

LINGER_SECONDS = 1.0
MAX_REFUSALS = 256
"""Refusals under way on one port; further connections are cut off without a word."""
RETRY_SECONDS = (1, 5)
FULL = "This process has as many connections as it may have."

_PROBE = re.compile(rb"GET (/[a-z]+) HTTP/1\.[01]\r\n")

Probes = Mapping[bytes, Callable[[], HTTPResponse]]


class Refusal(asyncio.Protocol):
    """One connection that is answered without being served."""

    def __init__(
        self,
        transport: Any,
        loop: asyncio.AbstractEventLoop,
        message: Callable[[bytes], bytes],
        live: set["Refusal"],
    ) -> None:
        self._transport = transport
        self._message: Callable[[bytes], bytes] | None = message
        self._live = live
        self._end = loop.call_later(LINGER_SECONDS, self._give_up)
        live.add(self)

    def data_received(self, data: bytes) -> None:
        """Answer the first bytes, and pass over the others."""
        if self._message:
            message, self._message = self._message, None
            self._transport.write(message(data))
            self._transport.write_eof()

    def _give_up(self) -> None:
        if self._message:
            self._transport.write(self._message(b""))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._end.cancel()
        self._live.discard(self)


class Refuser:
    """Turns connections of one port away; `members` are those of its problem.

    Probes are answered all the same: a full process is neither dead nor unready, and a restart
    would only hand its clients to the next one.
    """

    def __init__(self, probes: Probes, **members: Any) -> None:
        self._probes = probes
        self._members = members
        self._live: set[Refusal] = set()

    def __call__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Turn one away."""
        if len(self._live) < MAX_REFUSALS:
            transport.set_protocol(Refusal(transport, loop, self._message, self._live))
        else:
            transport.abort()

    def _message(self, first: bytes) -> bytes:
        asked = _PROBE.match(first)
        if asked and (probe := self._probes.get(asked[1])):
            return whole(probe(), made(), close=True)
        seconds = random.randint(*RETRY_SECONDS)  # noqa: S311
        problem = Problem(503, FULL, {"Retry-After": str(seconds)}, **self._members)
        return whole(response(problem), made(), close=True)
