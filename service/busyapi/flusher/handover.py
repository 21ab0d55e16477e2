"""Replaces a primary that works, because it is about to stop or an operator asks for it.

The request is a key with an expiry, `busyapi:{0}:handover`, that names the primary. Commits
continue while the flusher raises the priority of a holder, and until the Sentinels have read that
priority, up to ten seconds later. Then the primary pauses its writes, and the holder replaces it.

Each step keeps the rule of `replicas`: the holder must confirm every commit until the end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from busyapi.archive.holders import Holders
from busyapi.errors import RedisUnavailable
from busyapi.failpoints import failpoint
from busyapi.flusher.retry import LastingProblem
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import ReplicaServer, inspect_replica, raise_priority
from busyapi.stream.replica_store import PrimaryReplicas, ReplicaStore
from busyapi.stream.sentinel import read_primary
from busyapi.stream.sentinel_failover import Start, find_unready, start_handover

log = structlog.get_logger()

STEP_SECONDS = 0.1
"""How often the Sentinels are asked whether they have read the new priority."""
RETRY_SECONDS = 1.0
"""How often a holder is looked for, if none can replace the primary."""
MAX_START_SECONDS = 12.0
"""More than a Sentinel takes to read a new priority."""
MAX_SWITCH_SECONDS = 3.0
"""How long the switch may take once a Sentinel has begun it. The lease must outlast it."""
POLL_SECONDS = 0.02
POLLS_BEFORE_FORCE = 2
"""The pause is long enough for the last writes to arrive at the other server."""


class Handover:
    """The hand-over that is under way, if any."""

    def __init__(
        self, endpoint: Endpoint, record_choice: Callable[[str, float], Awaitable[None]]
    ) -> None:
        self.chosen = ""
        """The server that replaces the primary, "" if there is none."""
        self._endpoint, self._record_choice = endpoint, record_choice
        self._next_step = 0.0
        self._logged = ""
        self._unstarted = LastingProblem(MAX_START_SECONDS)
        self._unready = LastingProblem(MAX_START_SECONDS)

    def is_due(self, partition: OwnedPartition) -> bool:
        """Return whether there is something to do."""
        is_active = bool(partition.handover or self.chosen or self._logged)
        return is_active and monotonic() >= self._next_step

    async def run_step(
        self, partition: OwnedPartition, primary: PrimaryReplicas, holders: Holders, refusal: str
    ) -> None:
        """Do the next step; `refusal` is why no commit is allowed.

        Raises:
            RedisUnavailable: the primary is replaced, or the connection failed.
            ArchiveFull, FsyncFailed: the choice could not be written.
        """
        self._next_step = monotonic() + STEP_SECONDS
        if partition.handover != primary.address:
            if partition.handover:
                await self._end(partition, primary, holders)
            self.chosen = self._logged = ""
            self._unstarted.end()
            self._unready.end()
            return
        try:
            reason = refusal or await self._choose(primary, holders)
            start = Start(reason) if reason else await self._start()
            if not start.refusal:
                await self.wait_for_switch(partition.replicas, start)
            elif self._unstarted.has_lasted(start.refusal):
                self._log_refused(primary.address, start.refusal)
        except RedisUnavailable as error:
            if self.chosen or partition.replicas.connection.is_closed:
                raise
            reason = str(error)  # another server refuses the priority
        if reason:
            self._next_step = monotonic() + RETRY_SECONDS
            self._log_refused(primary.address, reason)

    async def _end(
        self, partition: OwnedPartition, primary: PrimaryReplicas, holders: Holders
    ) -> None:
        """Delete a request that names another server: usually the primary that was replaced."""
        if partition.handover not in holders.addresses | primary.view.listed:
            self._log_refused(partition.handover, f"the primary is {primary.address}")
        await partition.replicas.end_handover()

    async def _choose(self, primary: PrimaryReplicas, holders: Holders) -> str:
        """Let Sentinels promote a holder; return why there is none."""
        if self.chosen:
            return ""
        confirming = primary.record.confirming if primary.record else frozenset()
        online = confirming & holders.addresses & frozenset(primary.view.online)
        key_names = self._endpoint.decider_keys
        servers = await asyncio.gather(
            *(inspect_replica(self._endpoint, address, key_names) for address in sorted(online))
        )
        able = [server for server in servers if is_able(server, primary, holders)]
        named = await read_primary(self._endpoint)
        if named is None:
            return "no Sentinel answers"
        if not able:
            reasons = [server.problem for server in servers if server.problem]
            return "; ".join(reasons) or "no replica holds every acknowledged usage"
        best = max(able, key=lambda server: (server.address in holders.raised, server.offset))
        await self._record_choice(best.address, named.failover_timeout_seconds)
        await raise_priority(self._endpoint, best.address)
        failpoint("handover-after-raise")
        self.chosen = best.address
        log.warning("handover_started", primary=primary.address, chosen=best.address)
        return ""

    async def _start(self) -> Start:
        """Start the failover once every Sentinel that answers can finish it.

        The one that executes it may die as soon as it has promoted the server. Then the primary is
        a replica already, and the others must be able to promote the same server.
        """
        unready = await find_unready(self._endpoint, self.chosen)
        if unready and not self._unready.has_lasted(unready):
            return Start(unready)
        return await start_handover(self._endpoint)

    async def wait_for_switch(self, store: ReplicaStore, start: Start) -> None:
        """Wait until the primary has become a replica.

        Without coordination, a Sentinel promotes the other server in a tenth of a second, and the
        primary would notice that after many. So it is made a replica before.

        Raises:
            RedisUnavailable: it has, or did not in time, or the connection failed.
        """
        polls, has_begun, end = 0, False, monotonic() + MAX_SWITCH_SECONDS
        if not start.is_coordinated:
            await store.pause_for_failover(self.chosen)
        while monotonic() < end:
            role, state = await store.read_role()
            if role != "master":
                await store.end_pause()
                raise RedisUnavailable("the primary has been replaced")
            has_begun = has_begun or state == "waiting-for-sync"
            if start.is_coordinated and has_begun and state != "failover-in-progress":
                # Not for its own FAILOVER: an ABORT that comes late ends what has begun. Not only
                # once: it may also have aborted a FAILOVER that had just stopped waiting.
                polls += 1
                if polls % POLLS_BEFORE_FORCE == 0:
                    await store.force_failover(self.chosen)
            await asyncio.sleep(POLL_SECONDS)
        raise RedisUnavailable("the primary has not become a replica")  # the Sentinels name another

    def _log_refused(self, address: str, reason: str) -> None:
        if self._logged != address:
            self._logged = address
            log.warning("handover_refused", primary=address, detail=reason)


def is_able(server: ReplicaServer, primary: PrimaryReplicas, holders: Holders) -> bool:
    """Return whether a replica may replace the primary: a holder in good state."""
    return (
        server.was_reached
        and not server.problem
        and not server.is_settling
        and not server.is_primary
        and server.replid == primary.replid
        and server.data.run_id == holders.processes.get(server.address)
    )
