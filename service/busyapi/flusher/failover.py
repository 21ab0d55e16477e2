"""Promotes a server that holds every acknowledged usage, after the loss of the primary.

Sentinels detect the loss and change the roles, but choose no server by themselves: every server
has `replica-priority 0`. The flusher chooses a holder, records the choice, raises the holder's
priority, and starts the failover. When the holder is the primary, its priority becomes 0 again
before any commit is allowed on it (`replicas`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

import structlog

from busyapi.archive.holders import Holders
from busyapi.errors import RedisUnavailable
from busyapi.failpoints import failpoint
from busyapi.flusher.holder_check import ArchiveEvidence, find_missing_data, has_restarted
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_server import ReplicaServer, inspect_replica, raise_priority
from busyapi.stream.sentinel import find_down_primary, start_failover

log = structlog.get_logger()

WAIT_FOR_HOLDERS_SECONDS = 30.0
"""How long to wait for the other holders if all that are reached have restarted. After a power cut
they start one after the other, and one of them may have an older volume."""


class Choice(NamedTuple):
    """A server to promote, or why there is none."""

    server: ReplicaServer | None
    reason: str = ""


class HolderPromoter:
    """Makes Sentinels promote a holder. It remembers since when it has waited for others."""

    def __init__(
        self, endpoint: Endpoint, record_choice: Callable[[str, float], Awaitable[None]]
    ) -> None:
        self._endpoint, self._record_choice = endpoint, record_choice
        self._down_since: float | None = None

    async def promote(self, holders: Holders, archive: ArchiveEvidence) -> str:
        """Make the Sentinels promote a holder if they find the primary down; call it until they do.

        A Sentinel learns the new priority within a second, so the first calls may have no effect.

        Return why the primary is down and no failover starts, "" otherwise.
        """
        endpoint = self._endpoint
        down = await find_down_primary(endpoint)
        if down is None:
            self._down_since = None
            return ""
        now = monotonic()
        if self._down_since is None:
            self._down_since = now
        key_names = endpoint.key_names(0)
        servers = await asyncio.gather(
            *(
                inspect_replica(endpoint, address, key_names)
                for address in sorted(holders.addresses - {down.address})
            )
        )
        may_wait = now - self._down_since < WAIT_FOR_HOLDERS_SECONDS
        chosen, reason = choose_holder(list(servers), holders, archive, may_wait=may_wait)
        if chosen is None:
            return reason
        try:
            if chosen.address not in holders.raised or chosen.is_unpromotable:
                # If the process dies after this, the server cannot leave the holders: see
                # `replicas`.
                await self._record_choice(chosen.address, down.failover_timeout_seconds)
                await raise_priority(endpoint, chosen.address)
                failpoint("failover-after-raise")
                log.warning("failover_started", down=down.address, chosen=chosen.address)
        except RedisUnavailable as error:
            return str(error)  # another one may be reachable at the next call
        return await start_failover(endpoint, down)


def choose_holder(
    servers: list[ReplicaServer], holders: Holders, archive: ArchiveEvidence, *, may_wait: bool
) -> Choice:
    """Return the holder to promote: one chosen before, else the one with most data.

    Every holder has all acknowledged usages. More data are usages whose answer was lost. But a
    process that has restarted may have lost its volume: one that has not is preferred, and the
    others are waited for.
    """
    if not servers:
        return Choice(None, "no other server holds every acknowledged usage")
    if any(server.is_primary and server.address in holders.raised for server in servers):
        return Choice(None)  # it is promoted, and the Sentinels do not say so yet
    candidates, reasons = [], []
    for server in servers:
        if reason := _find_obstacle(server, holders, archive):
            reasons.append(reason)
        else:
            candidates.append(server)
    if not candidates:
        return Choice(None, "; ".join(reasons))
    best = max(candidates, key=lambda server: _rank(server, holders))
    if may_wait and has_restarted(best.data, holders) and reasons:
        waiting = f"{best.address} has restarted: the flusher waits for the other holders"
        return Choice(None, "; ".join([waiting, *reasons]))
    return Choice(best)


def _find_obstacle(server: ReplicaServer, holders: Holders, archive: ArchiveEvidence) -> str:
    if not server.was_reached:
        return server.problem
    if server.is_primary:
        # It restarted as a primary, by its own configuration. Sentinels make it a replica later.
        return f"{server.address} is a primary that the flusher has not chosen"
    if missing := find_missing_data(server.data, holders, archive):
        return f"{server.address} may lack acknowledged usages: {missing}"
    return ""


def _rank(server: ReplicaServer, holders: Holders) -> tuple[bool, bool, int, int]:
    # Offsets of servers that have restarted cannot be compared: each begins a new count.
    return (
        not has_restarted(server.data, holders),
        server.address in holders.raised,
        server.data.seq or 0,
        server.offset,
    )
