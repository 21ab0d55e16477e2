"""Connecting to one of a host's addresses, which may drop the first packets."""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

Tries = tuple[float, ...]
"""How long each attempt to connect may take, in seconds."""
FEW_TRIES: Tries = (0.2, 0.2)
"""Enough for a server that works: its kernel accepts, also if it is busy."""
ALL_TRIES: Tries = (*FEW_TRIES, 0.2, 0.4, math.inf)
"""The kernel repeats a lost SYN only after a second. But those of a new pod are dropped until the
network policies know its address, and a node that is off never answers: so each address is tried
again, and the next one, before that. The last try ends when the caller cancels it."""

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


async def connect(
    make_protocol: Callable[[], _Protocol],
    host: str,
    port: int,
    ips: Sequence[str],
    context: ssl.SSLContext | None,
    *,
    tries: Tries = ALL_TRIES,
) -> tuple[_Protocol, str]:
    """Return the protocol of a connection, and its address; with `context` it has TLS.

    Raises:
        OSError: every address refuses the connection; the error is the first one's.
        TimeoutError: no address has answered.
    """
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    is_silent = False
    for seconds in tries:
        is_silent = False
        for ip in ips:
            try:
                sock = await _connect_socket(ip, port, seconds)
            except TimeoutError:
                is_silent = True
                continue
            except OSError as error:
                failure = failure or error
                continue
            try:
                # The handshake may take longer than a try: a server that is slow has answered.
                _, protocol = await loop.create_connection(
                    make_protocol, sock=sock, ssl=context, server_hostname=host if context else None
                )
            except OSError as error:
                failure = failure or error
            else:
                return protocol, ip
        if not is_silent:
            break
    raise failure or (TimeoutError() if is_silent else OSError(f"{host} has no address"))


async def _connect_socket(ip: str, port: int, seconds: float) -> socket.socket:
    """Return a connected socket.

    Raises:
        TimeoutError: nothing answered in time.
        OSError: the address refuses the connection.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(seconds if math.isfinite(seconds) else None):
            await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except BaseException:
        sock.close()
        raise
    return sock
