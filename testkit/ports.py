"""Free TCP ports that stay free while their server is down.

A port found by binding and closing may be taken, by another test or as the source port of a
connection, before the server binds it or while it restarts. So the socket stays bound and never
listens: with SO_REUSEADDR and SO_REUSEPORT on both sides Linux lets the server listen there all
the same, gives the port to nobody else, and refuses connections while the server is down.
"""

import socket
from collections import deque

MAX_HELD_PORTS = 256
"""The newest this many ports are held; earlier ones belong to tests that are over."""

_held: deque[socket.socket] = deque()


def reserve_port() -> int:
    """Return a port on 127.0.0.1 that nobody else will be given."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    _held.append(sock)
    if len(_held) > MAX_HELD_PORTS:
        _held.popleft().close()
    port: int = sock.getsockname()[1]
    return port
