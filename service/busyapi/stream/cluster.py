"""The replicas that a cluster knows for one of its primaries."""

import asyncio

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_server import query_server, split_address

ASK_TIMEOUT_SECONDS = 1.0


async def list_replicas(endpoint: Endpoint, connection: RedisConnection) -> frozenset[str]:
    """Return the addresses of all replicas of a primary that any primary of the cluster knows.

    The primaries vote for a replica that they know, also if the primary itself has forgotten it.
    One that cannot be reached is not asked.

    Raises:
        RedisUnavailable: the connection failed, or the server refuses.
    """
    (reply,) = await connection.pipeline(("CLUSTER", "NODES"))
    if isinstance(reply, ServerError):
        raise RedisUnavailable(f"Redis refuses to list its nodes: {reply}")
    nodes = _parse_nodes(reply)
    own = next(fields[0] for fields in nodes if "myself" in fields[2])
    voters = [
        _address_of(fields)
        for fields in nodes
        if "master" in fields[2] and "noaddr" not in fields[2] and fields[0] != own
    ]
    others = await asyncio.gather(*(_ask_nodes(endpoint, address) for address in voters))
    return frozenset(
        _address_of(fields) for known in (nodes, *others) for fields in known if fields[3] == own
    )


async def _ask_nodes(endpoint: Endpoint, address: str) -> list[list[str]]:
    """Return the nodes that another primary knows, none if it does not answer."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            (reply,) = await query_server(
                endpoint, split_address(address), endpoint.login, ("CLUSTER", "NODES")
            )
    except (RedisUnavailable, TimeoutError, ValueError):  # a node without an address yet
        return []
    return [] if isinstance(reply, ServerError) else _parse_nodes(reply)


def _parse_nodes(reply: bytes) -> list[list[str]]:
    return [line.split() for line in reply.decode().splitlines()]


def _address_of(fields: list[str]) -> str:
    # An address is `host:port@bus,name`.
    return fields[1].partition("@")[0]
