"""Reserve TCP ports that stay free while their server is down.

If a test bound a port and closed it, another test or a connection's source port could take it
before the server binds it or while the server restarts. So the socket stays bound and never
listens. With SO_REUSEADDR and SO_REUSEPORT on both sides Linux still lets the server listen there,
assigns the port to no other process, and refuses connections while the server is down.
"""

import socket
from collections import deque

MAX_HELD_PORTS = 256
"""Only the newest ports stay reserved. Earlier ones belong to tests that have ended."""

_held: deque[socket.socket] = deque()


def reserve_port() -> int:
    """Reserve a port on 127.0.0.1 and return it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    _held.append(sock)
    if len(_held) > MAX_HELD_PORTS:
        _held.popleft().close()
    port: int = sock.getsockname()[1]
    return port
