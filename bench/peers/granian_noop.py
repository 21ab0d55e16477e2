"""A bare RSGI application answering 201 with a number; Granian serves it."""

from itertools import count
from typing import Any

_numbers = count(1)
_HEADERS = [("content-type", "application/json")]


async def app(_: Any, protocol: Any) -> None:
    """Answer as if the usage were stored."""
    await protocol()
    protocol.response_bytes(201, _HEADERS, b'{"id":%d}' % next(_numbers))
