"""The replicas that a cluster knows for one of its primaries."""

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError


async def list_replicas(connection: RedisConnection) -> frozenset[str]:
    """Return the addresses of all replicas of a primary, also of those that it does not reach.

    Raises:
        RedisUnavailable: the connection failed, or the server refuses.
    """
    (reply,) = await connection.pipeline(("CLUSTER", "NODES"))
    if isinstance(reply, ServerError):
        raise RedisUnavailable(f"Redis refuses to list its nodes: {reply}")
    nodes = [line.split() for line in reply.decode().splitlines()]
    own = next(fields[0] for fields in nodes if "myself" in fields[2])
    # An address is `host:port@bus,name`.
    return frozenset(fields[1].partition("@")[0] for fields in nodes if fields[3] == own)
