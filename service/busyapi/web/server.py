"""Sockets, and a stop that holds."""

import asyncio
import errno
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import structlog
from sanic import Sanic

log = structlog.get_logger()

STOP_RETRY_SECONDS = 0.1
RESERVED_FILES = 1408
"""For what is no client's connection: Redis and the archive (128), the metrics port (256), and on
both ports those that are refused (256) or made room (256) and still hear why."""


def stop_app(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server from within, also while it is still starting.

    A stop of the loop during Sanic's start-up only ends the step it is in, so it is said again.
    """
    if not stopping():
        app.stop(terminate=False)
        asyncio.get_running_loop().call_later(STOP_RETRY_SECONDS, stop_app, app, stopping)


def install_stop_signals(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
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
        loop.call_soon_threadsafe(stop_app, app, stopping)

    for each in both:
        signal.signal(each, first)


def open_listener(port: int, *, shared: bool = True) -> socket.socket:
    """Open a port, for IPv6 and IPv4; a shared one also to other processes of this machine.

    Raises:
        OSError: the port is taken by a program that does not share it.
    """
    try:
        return _bind(socket.AF_INET6, ("::", port), shared=shared)
    except OSError as error:
        # A machine without IPv6: no such sockets, or no such address.
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT}:
            raise describe_port_error(port, error) from None
    try:
        return _bind(socket.AF_INET, ("0.0.0.0", port), shared=shared)  # noqa: S104 - a server
    except OSError as error:
        raise describe_port_error(port, error) from None


def _bind(family: socket.AddressFamily, address: tuple[str, int], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def raise_open_files_limit(connections: int) -> int:
    """Raise the limit of open files to what so many connections need; return how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
        soft = max(soft, most)
        if soft < wanted:
            log.warning(
                "open_files_limit_low", connections=soft - RESERVED_FILES, configured=connections
            )
            return max(1, soft - RESERVED_FILES)
    return connections


def describe_port_error(port: int, error: OSError) -> OSError:
    """Say which port it was."""
    return OSError(error.errno, f"port {port}: {error.strerror}")
