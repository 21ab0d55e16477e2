"""Are the ports free? Asked before anything is started, so that the answer names the setting."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from busyapi.dev.plan import Port
from busyapi.errors import BusyapiError


class PortTaken(BusyapiError):
    """A port cannot be opened."""


def refuse_taken(port: Port) -> None:
    """See that nobody listens on a port.

    Our processes open it with SO_REUSEPORT, which would share it with those of another
    `busyapi dev` without a word: half of the usages would end in the other archive.

    Raises:
        PortTaken: someone listens there, or this user may not; the message says what to change.
    """
    try:
        _bind(port.number)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        what = "is taken" if taken else f"cannot be opened ({error.strerror})"
        raise PortTaken(
            f"port {port.number}, wanted for {port.use}, {what}: choose another by {port.setting}"
        ) from None


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
def held_port() -> Iterator[int]:
    """Find a free port on 127.0.0.1 for a server, and keep others off it while that restarts.

    The socket stays bound and never listens: with SO_REUSEADDR on both sides the server may
    listen there all the same, and no connection is given the port as its own.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
