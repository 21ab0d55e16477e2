"""Promotes a server that holds every acknowledged usage, after the loss of the primary.

Sentinels detect the loss and change the roles, but choose no server by themselves: every server
has `replica-priority 0`. The flusher chooses a holder, records the choice, raises the holder's
priority, and starts the failover. When the holder is the primary, its priority becomes 0 again
before any commit is allowed on it (`replicas`).
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from busyapi.archive.holders import Holders
from busyapi.errors import RedisUnavailable
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_server import PROMOTABLE, ReplicaServer, inspect_replica, set_priority
from busyapi.stream.sentinel import find_down_primary, start_failover

log = structlog.get_logger()


async def promote_holder(
    endpoint: Endpoint, holders: Holders, record_choice: Callable[[str, float], Awaitable[None]]
) -> None:
    """Make the Sentinels promote a holder if they find the primary down; call it until they do.

    A Sentinel learns the new priority within a second, so the first calls may have no effect.
    """
    down = await find_down_primary(endpoint)
    if down is None:
        return
    candidates = holders.holders - {down.address}
    servers = await asyncio.gather(
        *(inspect_replica(endpoint, address, lower=False) for address in candidates)
    )
    chosen = choose_holder(list(servers), holders.raised)
    if chosen is None:
        return
    try:
        if chosen.address not in holders.raised or chosen.is_unpromotable:
            # If the process dies after this, the server cannot leave the holders: see `replicas`.
            await record_choice(chosen.address, down.failover_timeout_seconds)
            await set_priority(endpoint, chosen.address, PROMOTABLE)
            log.warning("failover_started", down=down.address, chosen=chosen.address)
    except RedisUnavailable:
        return  # another one may be reachable at the next call
    await start_failover(endpoint, down.sentinel)


def choose_holder(servers: list[ReplicaServer], raised: frozenset[str]) -> ReplicaServer | None:
    """Return the holder to promote: the one chosen before, else the one with most data.

    Every holder has all acknowledged usages. More data are usages whose answer was lost. Return
    None if no holder is reachable, or one is promoted already and the Sentinels do not say so yet.
    """
    if any(server.is_primary and server.address in raised for server in servers):
        return None
    # A holder that restarted as a primary, by its own configuration, has no offset to compare.
    replicas = [server for server in servers if server.was_reached and not server.is_primary]
    return max(replicas, key=lambda server: (server.address in raised, server.offset), default=None)
