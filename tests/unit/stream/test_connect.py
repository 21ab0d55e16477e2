"""Connecting to one of several addresses."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from busyapi.stream.connect import connect

GOOD, OTHER = "127.0.0.1", "127.0.0.2"
SECONDS = 10


@contextmanager
def listen(ip: str, port: int = 0, *, silent: bool = False) -> Iterator[int]:
    """Listen; `silent`: with a full backlog, so that Linux drops every further SYN."""
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.create_server((ip, port), backlog=0 if silent else 8))
        port = server.getsockname()[1]
        if silent:
            filler = sockets.enter_context(socket.create_connection((ip, port), SECONDS))
            assert filler
        yield port


async def connect_to(port: int, *ips: str) -> str:
    async with asyncio.timeout(SECONDS):
        protocol, ip = await connect(asyncio.Protocol, "redis", port, ips, None)
    assert protocol
    return ip


async def test_the_next_address_is_tried_if_one_is_silent() -> None:
    with listen(GOOD) as port, listen(OTHER, port, silent=True):
        assert await connect_to(port, OTHER, GOOD) == GOOD


async def test_the_next_address_is_tried_if_one_refuses() -> None:
    with listen(GOOD) as port:
        assert await connect_to(port, OTHER, GOOD) == GOOD


async def test_a_refusal_of_all_is_raised_at_once() -> None:
    with listen(GOOD) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await connect_to(port, GOOD, OTHER)


async def test_an_address_that_was_silent_is_tried_again() -> None:
    with socket.create_server((GOOD, 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection((GOOD, port), SECONDS):
            connecting = asyncio.create_task(connect_to(port, GOOD))
            _, pending = await asyncio.wait([connecting], timeout=0.1)
            assert pending
            server.accept()[0].close()
            assert await connecting == GOOD
