"""Finds the server that replaced a primary before the Sentinels name it.

A Sentinel learns of a promotion from an INFO that it sends once a second. A former primary that
works names its successor, and otherwise one of the last replicas is the new primary. A server is
never used because it was found here: a committer requires that the flusher has seeded it, and the
flusher that it holds every acknowledged usage.
"""

import asyncio
from collections.abc import Awaitable, Callable

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError

Open = Callable[[tuple[str, int]], Awaitable[RedisConnection]]
"""Connects to an address."""

ASK_TIMEOUT_SECONDS = 0.5
HEAD_START_SECONDS = 0.3
"""How long the server that the Sentinels name may take to accept before others are asked."""


async def open_primary(
    open_server: Open, address: tuple[str, int], successors: set[str]
) -> RedisConnection:
    """Connect to the server that the Sentinels name, or to the successor that has replaced it.

    Raises:
        RedisUnavailable: it cannot be reached, and no other is known.
    """
    named = asyncio.ensure_future(open_server(address))
    other: RedisConnection | None = None
    try:
        await asyncio.wait({named}, timeout=HEAD_START_SECONDS if successors else None)
        if not named.done() or named.exception():
            others = successors - {f"{address[0]}:{address[1]}"}
            other = await _find_promoted(open_server, others)
    except BaseException:
        await _discard(named)
        raise
    if other:
        await _discard(named)
        return other
    connection = await named
    role, successor = await _ask_role(connection)
    if role == "slave" and (other := await _find_promoted(open_server, {successor})):
        await connection.close()
        return other
    return connection


async def _find_promoted(open_server: Open, addresses: set[str]) -> RedisConnection | None:
    """Return a connection to the first server that is a primary, None if none is."""
    tasks = [asyncio.create_task(_open_if_primary(open_server, address)) for address in addresses]
    found: RedisConnection | None = None
    for connection in await asyncio.gather(*tasks):
        if found and connection:
            await connection.close()
        found = found or connection
    return found


async def _open_if_primary(open_server: Open, address: str) -> RedisConnection | None:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            connection = await open_server((host, int(port)))
            try:
                role, _ = await _ask_role(connection)
            except BaseException:
                await connection.close()
                raise
    except (RedisUnavailable, TimeoutError, ValueError):
        return None
    if role == "master":
        return connection
    await connection.close()
    return None


async def _ask_role(connection: RedisConnection) -> tuple[str, str]:
    """Return a server's role, and the address of its primary."""
    (reply,) = await connection.pipeline(("INFO", "replication"))
    if isinstance(reply, ServerError):
        return "", ""
    lines = reply.decode(errors="replace").splitlines()
    facts = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("role", ""), f"{facts.get('master_host')}:{facts.get('master_port')}"


async def _discard(task: "asyncio.Future[RedisConnection]") -> None:
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, RedisConnection):
        await result.close()
