"""Finds the server that replaced a primary before the Sentinels name it.

A Sentinel learns of a promotion from an INFO that it sends once a second. A former primary that
works names its successor, and otherwise one of the last replicas is the new primary. A server is
never used because it was found here: a committer requires that the flusher has seeded it, and the
flusher that it holds every acknowledged usage.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError
from busyapi.stream.durability import parse_info

Open = Callable[[tuple[str, int]], Awaitable[RedisConnection]]
"""Connects to an address."""


class _Server(NamedTuple):
    """A connection, the server's role, and the primary that it names."""

    connection: RedisConnection
    role: str
    primary: str


ASK_TIMEOUT_SECONDS = 0.5
POLL_SECONDS = 0.1
HEAD_START_SECONDS = 0.3
"""How long the server that the Sentinels name may take to accept before others are asked."""


def replace_successors(known: set[str], addresses: Iterable[str]) -> None:
    """Replace the known servers, in the same set, which each connection attempt reads."""
    known.clear()
    known.update(addresses)


async def open_primary(
    open_server: Open, address: tuple[str, int], successors: set[str]
) -> RedisConnection:
    """Connect to the server that the Sentinels name, or to the successor that has replaced it.

    Raises:
        RedisUnavailable: it cannot be reached, and no other is known.
    """
    named = asyncio.create_task(_open(open_server, address))
    others = successors - {f"{address[0]}:{address[1]}"}
    other: RedisConnection | None = None
    try:
        await asyncio.wait({named}, timeout=HEAD_START_SECONDS if others else None)
        while others and not other and (not named.done() or named.exception()):
            other = await _find_promoted(open_server, others)
            if named.done():
                break
            await asyncio.wait({named}, timeout=POLL_SECONDS)
    except BaseException:
        await _discard(named)
        raise
    if other:
        await _discard(named)
        return other
    server = await named
    if server.role == "slave" and (other := await _find_promoted(open_server, {server.primary})):
        await server.connection.close()
        return other
    return server.connection


async def _find_promoted(open_server: Open, addresses: set[str]) -> RedisConnection | None:
    """Return a connection to the first server that is a primary, None if none is."""
    tasks = [asyncio.create_task(_open_if_primary(open_server, address)) for address in addresses]
    promoted: RedisConnection | None = None
    for connection in await asyncio.gather(*tasks):
        if promoted and connection:
            await connection.close()
        promoted = promoted or connection
    return promoted


async def _open_if_primary(open_server: Open, address: str) -> RedisConnection | None:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            server = await _open(open_server, (host, int(port)))
    except (RedisUnavailable, TimeoutError, ValueError):
        return None
    if server.role == "master":
        return server.connection
    await server.connection.close()
    return None


async def _open(open_server: Open, address: tuple[str, int]) -> _Server:
    connection = await open_server(address)
    try:
        (reply,) = await connection.pipeline(("INFO", "replication"))
    except BaseException:
        await connection.close()
        raise
    if isinstance(reply, ServerError):
        return _Server(connection, "", "")
    facts = parse_info(reply)
    primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
    return _Server(connection, facts.get("role", ""), primary)


async def _discard(task: asyncio.Task[_Server]) -> None:
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, _Server):
        await result.connection.close()


async def has_promoted(open_server: Open, addresses: set[str]) -> bool:
    """Return whether one of these servers is a primary."""
    connection = await _find_promoted(open_server, addresses)
    if connection:
        await connection.close()
    return connection is not None
