"""Connecting to one of several addresses."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from busyapi.stream.connect import FEW_TRIES, connect
from testkit.certificates import Certificates, make_certificates

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


async def test_a_silent_address_is_given_up_after_few_tries() -> None:
    with listen(GOOD, silent=True) as port:
        connecting = connect(asyncio.Protocol, "redis", port, [GOOD], None, tries=FEW_TRIES)
        async with asyncio.timeout(SECONDS) as limit:
            with pytest.raises(TimeoutError):
                await connecting
        assert not limit.expired()


@contextmanager
def serve_tls(certificates: Certificates, pause: float) -> Iterator[tuple[int, list[str]]]:
    """Accept connections, and begin each TLS handshake after a pause; list who connected."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    accepted: list[str] = []

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # the test has closed it
            while True:
                sock, address = server.accept()
                accepted.append(address[0])
                time.sleep(pause)
                with suppress(OSError):
                    context.wrap_socket(sock, server_side=True)

    with socket.create_server((GOOD, 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1], accepted
        server.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)


async def test_a_slow_handshake_is_not_begun_again(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=certificates.ca)
    with serve_tls(certificates, 6 * max(FEW_TRIES)) as (port, accepted):
        async with asyncio.timeout(SECONDS):
            _, ip = await connect(asyncio.Protocol, "localhost", port, [GOOD, OTHER], context)
        assert ip == GOOD
        assert len(accepted) == 1
