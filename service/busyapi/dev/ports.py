"""Checks before the start whether ports are free, so that the error names the setting."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from busyapi.dev.command_text import format_this_command
from busyapi.dev.plan import MAX_PORT, Port
from busyapi.errors import BusyapiError

SUGGESTION_STEP = 10


class PortInUse(BusyapiError):
    """A port cannot be opened."""


def require_free(port: Port) -> None:
    """Check that no program listens on a port.

    The processes open it with SO_REUSEPORT, which would share it silently with those of another
    `busyapi dev`: half of the usages would end in the other archive.

    Raises:
        PortInUse: a program listens there, or this user may not; the message says what to type.
    """
    try:
        _bind(port.number)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = "is in use: stop the program that listens there, or choose another"
        else:
            problem = f"cannot be opened ({error.strerror}): choose another"
        raise PortInUse(
            f"port {port.number} ({port.use}) {problem}: {_suggest_command(port)}"
        ) from None


def _suggest_command(port: Port) -> str:
    first = port.first + SUGGESTION_STEP
    while first + port.siblings <= MAX_PORT and not all(
        map(_is_free, range(first, first + port.siblings))
    ):
        first += SUGGESTION_STEP
    if port.setting.startswith("--"):
        return format_this_command(port.setting, str(first))
    return f"{port.setting}={first} {format_this_command()}"


def _is_free(number: int) -> bool:
    try:
        _bind(number)
    except OSError:
        return False
    return True


def _bind(number: int) -> None:
    try:
        family = socket.AF_INET6
        sock = socket.socket(family)
    except OSError:  # a machine without IPv6
        family = socket.AF_INET
        sock = socket.socket(family)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("", number))


@contextmanager
def reserve_port() -> Iterator[int]:
    """Reserve a free port on 127.0.0.1 for a server, also while the server restarts.

    The socket stays bound and never listens. With SO_REUSEADDR on both sides the server may listen
    there all the same, and the kernel gives the port to no connection.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
