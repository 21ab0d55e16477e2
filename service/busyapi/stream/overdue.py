"""Whether a commit whose replies are overdue can still be confirmed."""

import asyncio

from busyapi.errors import RedisUnavailable
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_server import query_server, split_address
from busyapi.stream.replicas import VIEW_COMMAND, ReplicaView, parse_view

ASK_TIMEOUT_SECONDS = 0.3


async def is_view_outdated(endpoint: Endpoint, address: str, view: ReplicaView) -> bool:
    """Return whether a server has other replicas than a commit on it waits for, or is no primary.

    Then the commit waits in vain: it must be sent again, under the same number.
    """
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            (info,) = await query_server(
                endpoint, split_address(address), endpoint.login, VIEW_COMMAND
            )
    except (RedisUnavailable, TimeoutError):
        return endpoint.mode == "sentinel" and await endpoint.has_successor(address)
    is_primary = isinstance(info, bytes) and b"role:master" in info
    return not is_primary or parse_view(info) != view
