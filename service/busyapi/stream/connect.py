"""Connecting to one of a host's addresses, which may drop the first packets."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

FIRST_TRIES_SECONDS = (0.2, 0.2, 0.2, 0.4)
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
) -> tuple[_Protocol, str]:
    """Return the protocol of a connection, and its address; with `context` it has TLS.

    Raises:
        OSError: every address refuses the connection; the error is the first one's.
    """
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for seconds in (*FIRST_TRIES_SECONDS, None):
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
    raise failure or OSError(f"{host} has no address")


async def _connect_socket(ip: str, port: int, seconds: float | None) -> socket.socket:
    """Return a connected socket.

    Raises:
        TimeoutError: nothing answered in time.
        OSError: the address refuses the connection.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except BaseException:
        sock.close()
        raise
    return sock
