"""What both roles need of Sanic: a port, connections that can be closed, a stop that holds."""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any, ClassVar

from sanic import Sanic

from busyapi.web.http1 import HalfCloseProtocol

AGAIN_SECONDS = 0.1


class KnownProtocol(HalfCloseProtocol):
    """Sanic's protocol; the process knows its connections."""

    live: ClassVar[set["KnownProtocol"]] = set()

    def connection_made(self, transport: Any) -> None:
        """Remember the connection."""
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.live.discard(self)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]


def close_idle() -> None:
    """Close every connection that has no request under way.

    Sanic does so after the server has closed, and asyncio's own loop, from Python 3.12 on, waits
    there for every connection (cpython#104344).
    """
    for each in list(KnownProtocol.live):
        each.close_if_idle()


def stop(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server from within, also while it is still starting.

    A stop of the loop during Sanic's start-up only ends the step it is in, so it is said again.
    """
    if not stopping():
        app.stop(terminate=False)
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, stop, app, stopping)


def stop_at_signals(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server at the first SIGTERM or SIGINT, and pass over others: a stop has its bounds.

    Sanic's own handlers are gone once it stops, and a second signal would end the process in the
    middle of it. A `busyapi dev` that is killed signals its children once for each of its threads.
    To be called after the server's start, before which Sanic has both ignored, and with
    `register_sys_signals=False`.
    """
    loop = asyncio.get_running_loop()
    both = signal.SIGTERM, signal.SIGINT

    def first(*_: object) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop, app, stopping)

    for each in both:
        signal.signal(each, first)


def listen(port: int) -> socket.socket:
    """Open a port, for IPv6 and IPv4, shared with other processes of this machine.

    Raises:
        OSError: the port is taken by a program that does not share it.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        address: tuple[Any, ...] = ("::", port)
    except OSError:  # a machine without IPv6
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        address = ("0.0.0.0", port)  # noqa: S104 - a server for others
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise port_error(port, error) from None
    return sock


def port_error(port: int, error: OSError) -> OSError:
    """Say which port it was."""
    return OSError(error.errno, f"port {port}: {error.strerror}")
