"""Listening sockets. This module imports no web server, so a process can listen at once."""

import errno
import socket

import structlog

from busyapi.errors import BusyapiError

log = structlog.get_logger()

LISTEN_BACKLOG = 4096
"""Connections that wait to be accepted."""


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


def open_listener(
    port: int, setting: str, *, host: str = "", shared: bool = True, early: bool = False
) -> socket.socket:
    """Bind a port; other processes of this machine may bind a shared port too.

    `early`: listen before the process can serve, unless another one serves the port. A probe that
    comes meanwhile waits in the queue, and is answered as soon as the process runs.

    Without a `host`, bind all addresses of IPv6 and IPv4. `setting` is the name of the setting that
    has the port. Open every port before Sanic starts: it would log an error during its start as one
    of a library.

    Raises:
        PortUnavailable: a program that does not share the port uses it, or this user may not.
    """
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return _bind(family, (host, port), shared=shared, early=early)
        except OSError as error:
            raise PortUnavailable(port, setting, error, host) from None
    try:
        return _bind(socket.AF_INET6, ("::", port), shared=shared, early=early)
    except OSError as error:
        # A machine without IPv6 has no such sockets, or no such address.
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT}:
            raise PortUnavailable(port, setting, error) from None
    try:
        return _bind(socket.AF_INET, ("0.0.0.0", port), shared=shared, early=early)  # noqa: S104 - a server
    except OSError as error:
        raise PortUnavailable(port, setting, error) from None


def _bind(
    family: socket.AddressFamily, address: tuple[str, int], *, shared: bool, early: bool
) -> socket.socket:
    listens = not shared or (early and not _is_served(family, address))
    sock = _make_socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.bind(address)
        if listens:
            # Without sharing, two processes may bind the port, and only one may then listen.
            sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_served(family: socket.AddressFamily, address: tuple[str, int]) -> bool:
    """Return whether a process listens on a port: it may serve what would wait here."""
    with _make_socket(family) as sock:
        try:
            sock.bind(address)
        except OSError:
            return True
    return False


def _make_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
