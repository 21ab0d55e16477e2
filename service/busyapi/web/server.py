"""Listening sockets, the limit of open files, and a reliable stop."""

import asyncio
import errno
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import structlog
from sanic import Sanic

from busyapi.errors import BusyapiError

log = structlog.get_logger()

STOP_RETRY_SECONDS = 0.1
RESERVED_FILES = 1408
"""Files other than served connections: Redis and the archive (128), the metrics port (256), and, on
both ports, connections that get a last response because they were refused (256) or gave up their
place (256)."""


def stop_app(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server from within its process, even while it is still starting.

    During Sanic's start-up a stop of the loop ends only the current step, so it is repeated until
    `stopping` returns true.
    """
    if not stopping():
        app.stop(terminate=False)
        asyncio.get_running_loop().call_later(STOP_RETRY_SECONDS, stop_app, app, stopping)


def install_stop_signals(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server at the first SIGTERM or SIGINT, and ignore later ones: a stop has a deadline.

    Sanic removes its own handlers when it stops, so a second signal would kill the process during
    the stop. A killed `busyapi dev` signals its children once for each of its threads. Call this
    after the server's start, until which Sanic ignores both signals, and with
    `register_sys_signals=False`.
    """
    loop = asyncio.get_running_loop()
    signals = signal.SIGTERM, signal.SIGINT

    def stop_once(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop_app, app, stopping)

    for number in signals:
        signal.signal(number, stop_once)


class PortUnavailable(BusyapiError):
    """A port cannot be opened."""

    def __init__(self, port: int, setting: str, error: OSError, host: str = "") -> None:
        at, other = (f" of {host}", ", or BUSYAPI_HOST to another address") if host else ("", "")
        super().__init__(
            f"port {port}{at} cannot be opened: {error.strerror}. Set {setting} to another port"
            f"{other}, or stop the program that uses this one"
        )
        self.port, self.setting = port, setting

    def log(self) -> None:
        """Log that the process cannot run."""
        reason, detail = type(self).__name__, str(self)
        log.error("fatal_error", reason=reason, detail=detail, port=self.port, setting=self.setting)


def open_listener(port: int, setting: str, *, host: str = "", shared: bool = True) -> socket.socket:
    """Bind a port; other processes of this machine may bind a shared port too.

    Without a `host`, bind all addresses of IPv6 and IPv4. `setting` is the name of the setting that
    has the port. Open every port before Sanic starts: it would log an error during its start as one
    of a library.

    Raises:
        PortUnavailable: a program that does not share the port uses it, or this user may not.
    """
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return _bind(family, (host, port), shared=shared)
        except OSError as error:
            raise PortUnavailable(port, setting, error, host) from None
    try:
        return _bind(socket.AF_INET6, ("::", port), shared=shared)
    except OSError as error:
        # A machine without IPv6 has no such sockets, or no such address.
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT}:
            raise PortUnavailable(port, setting, error) from None
    try:
        return _bind(socket.AF_INET, ("0.0.0.0", port), shared=shared)  # noqa: S104 - a server
    except OSError as error:
        raise PortUnavailable(port, setting, error) from None


def _bind(family: socket.AddressFamily, address: tuple[str, int], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.bind(address)
        if not shared:
            # Two processes may bind the port at the same time; only one may then listen.
            sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def raise_open_files_limit(connections: int) -> int:
    """Raise the limit of open files for so many connections; return how many it then allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < required:
        allowed = required if hard == resource.RLIM_INFINITY else min(required, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        soft = max(soft, allowed)
        if soft < required:
            log.warning(
                "open_files_limit_low", connections=soft - RESERVED_FILES, configured=connections
            )
            return max(1, soft - RESERVED_FILES)
    return connections
