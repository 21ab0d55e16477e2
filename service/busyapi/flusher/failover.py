"""Promotes a server that holds every acknowledged usage, after the loss of the primary.

Sentinels detect the loss and change the roles, but choose no server by themselves: every server
has `replica-priority 0`. The flusher chooses a holder, records the choice, raises the holder's
priority, and starts the failover. When the Sentinels have finished that, the priority becomes 0
again (`replica_servers`). Until then the server remains on record as one that may be promoted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

import structlog

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveDamaged, ArchiveFull, RedisUnavailable
from busyapi.failpoints import failpoint
from busyapi.flusher.holder_check import (
    ArchiveEvidence,
    find_doubt,
    find_missing_data,
    read_evidence,
)
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.replica_servers import ServerReport
from busyapi.flusher.retry import LastingProblem
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import ReplicaServer, inspect_replica, raise_priority
from busyapi.stream.sentinel import read_primary, repeat_failover, start_failover

log = structlog.get_logger()

WAIT_FOR_HOLDERS_SECONDS = 30.0
"""How long to wait for the other holders if all that are reached have restarted. After a power cut
they start one after the other, and one of them may have an older volume."""
CHECK_SECONDS = 0.3
"""How long a primary may take to answer before it counts as lost."""
FAILOVER_INTERVAL_SECONDS = 0.05
"""How often the Sentinels are asked during a failover."""
MAX_FAILOVER_STEP_SECONDS = 3.0
"""How long the flusher waits for a failover before it tries to connect again."""
MIN_REFUSED_SECONDS = 1.0
"""How long commits may be refused before the Sentinels are asked about the primary. After a
failover they are for less."""
MIN_BLOCKED_SECONDS = 3.0
"""How long a failover may be impossible before that is logged."""


class Choice(NamedTuple):
    """A server to promote, or why there is none."""

    server: ReplicaServer | None
    reason: str = ""


class Promotion(NamedTuple):
    """What one call of `promote` did."""

    blocked: str = ""
    """Why the primary is down and no failover starts, "" otherwise."""
    is_pending: bool = False
    """A Sentinel finds the primary down, and no other is promoted yet."""


class HolderPromoter:
    """Makes Sentinels promote a holder. It remembers since when it has waited for others."""

    def __init__(
        self, endpoint: Endpoint, record_choice: Callable[[str, float], Awaitable[None]]
    ) -> None:
        self._endpoint, self._record_choice = endpoint, record_choice
        self._down = LastingProblem(WAIT_FOR_HOLDERS_SECONDS)

    async def promote(
        self, holders: Holders, archive: ArchiveEvidence, own_run_id: str, *, is_lost: bool
    ) -> Promotion:
        """Make the Sentinels promote a holder if they find the primary down; call it until they do.

        `is_lost` says that this flusher cannot reach the primary. Then the priority is raised
        before the Sentinels agree: at that moment they read it, and later only once a second. They
        promote no server before they agree, and the holder must confirm all commits until then.
        """
        endpoint = self._endpoint
        primary = await read_primary(endpoint)
        if (
            primary is None
            or not (primary.is_suspected or is_lost)
            or (not primary.is_down and await self._is_working(primary.address))
        ):
            self._down.end()
            return Promotion()
        may_wait = not self._down.has_lasted("the primary is down")
        key_names = endpoint.key_names(0)
        servers = await asyncio.gather(
            *(
                inspect_replica(endpoint, address, key_names)
                for address in sorted(holders.addresses - {primary.address})
            )
        )
        if any(server.is_primary and server.data.run_id == own_run_id for server in servers):
            return Promotion()  # this flusher uses it already
        chosen, reason = choose_holder(list(servers), holders, archive, may_wait=may_wait)
        if chosen is None:
            is_pending = bool(reason) and primary.is_suspected
            return Promotion(reason if is_pending else "", is_pending)
        try:
            if chosen.address not in holders.raised or chosen.is_unpromotable:
                # If the process dies after this, the server cannot leave the holders: see
                # `replicas`.
                await self._record_choice(chosen.address, primary.failover_timeout_seconds)
                await raise_priority(endpoint, chosen.address)
                failpoint("failover-after-raise")
                log.warning("failover_started", down=primary.address, chosen=chosen.address)
        except RedisUnavailable as error:
            # Another one may be reachable at the next call.
            return Promotion(str(error), primary.is_suspected)
        if not primary.is_down or primary.is_failing_over:
            return Promotion(is_pending=primary.is_suspected)
        return Promotion(await start_failover(endpoint, primary), is_pending=True)

    async def _is_working(self, address: str) -> bool:
        """Return whether the primary answers after all.

        A Sentinel closes the connections to a server that it promotes. And a holder whose priority
        was raised must confirm until the Sentinels know that it is 0 again.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                server = await inspect_replica(self._endpoint, address, self._endpoint.key_names(0))
        except TimeoutError:
            return False
        return server.is_primary


class Failover:
    """The failover that is under way, if any."""

    def __init__(self, endpoint: Endpoint, promoter: HolderPromoter, record: HolderRecord) -> None:
        self._endpoint, self._promoter, self._record = endpoint, promoter, record
        self._refused = LastingProblem(MIN_REFUSED_SECONDS)
        self.obstacle = ""
        """Why no failover is possible, "" if one is, or none is expected."""
        self._logged = ""
        self._blocking = LastingProblem(MIN_BLOCKED_SECONDS)
        self._replacing = LastingProblem(MIN_BLOCKED_SECONDS)

    async def note_report(
        self, partition: OwnedPartition, primary: str, report: ServerReport, holders: Holders
    ) -> None:
        """Note what the Sentinels say while the primary works.

        They may name another server for a second after a failover. If that lasts, the Sentinel
        which executed it was lost, and another one must promote the same server again.

        Without Sentinels no failover is expected; the nodes of a cluster are not asked.
        """
        obstacle = report.view.failover_obstacle if report.view else "no Sentinel answers"
        replacement = report.view.find_replacement(primary) if report.view else ""
        if self._replacing.has_lasted(replacement):
            obstacle = obstacle or replacement
            if primary in holders.raised:
                await partition.await_with_lease(repeat_failover(self._endpoint))
        if report.mode != "sentinel":
            obstacle = ""
        if obstacle and obstacle != self.obstacle:
            log.warning("failover_impossible", detail=obstacle)
        self.obstacle = obstacle

    async def require_reachable(self, partition: OwnedPartition, refusal: str) -> None:
        """While commits are refused, check that the Sentinels do not find the primary down.

        The network may have failed between it and all other servers, and not between it and this
        process: without a failover, commits would be refused until the network is repaired.

        Raises:
            RedisUnavailable: the Sentinels find the primary down.
        """
        if not self._refused.has_lasted(refusal) or self._endpoint.mode != "sentinel":
            return
        primary = await partition.await_with_lease(read_primary(self._endpoint))
        # After a failover, they may name the former primary for a second.
        present = partition.replicas.connection.address
        if primary and primary.is_down and primary.address == present:
            raise RedisUnavailable(
                f"the Sentinels find the primary {primary.address} down: {refusal}"
            )

    def forget_refusal(self) -> None:
        """Record that another server is used: commits may have been refused on the former one."""
        self._refused.end()

    def end(self) -> None:
        """Record that the primary answers."""
        self._logged = ""
        self._blocking.end()

    async def run(
        self, writer: PartitionWriter, stopping: asyncio.Event, own_run_id: str, *, is_lost: bool
    ) -> str:
        """Promote a holder if the Sentinels find the primary down; wait some seconds for that.

        Return why no failover starts although it should, "" otherwise.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        end = monotonic() + MAX_FAILOVER_STEP_SECONDS
        while True:
            promotion = await self._promote(writer, own_run_id, is_lost=is_lost)
            # The primary would not answer. So do not connect to it meanwhile.
            if not promotion.is_pending or monotonic() > end or stopping.is_set():
                break
            await asyncio.sleep(FAILOVER_INTERVAL_SECONDS)
        self.obstacle = blocked = promotion.blocked
        if self._blocking.has_lasted(blocked) and blocked != self._logged:
            log.warning("failover_blocked", detail=blocked)
            self._logged = blocked
        return f"no failover: {blocked}" if blocked else ""

    async def _promote(
        self, writer: PartitionWriter, own_run_id: str, *, is_lost: bool
    ) -> Promotion:
        try:
            holders = await self._record.read(again=True)
            if not holders.processes:  # another flusher decides, or none has decided yet
                return Promotion()
            evidence = read_evidence(writer)
            return await self._promoter.promote(holders, evidence, own_run_id, is_lost=is_lost)
        except (ArchiveFull, ArchiveDamaged) as error:
            return Promotion(str(error))


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
    if may_wait and reasons and (doubt := find_doubt(best.data, holders)):
        waiting = f"{best.address} {doubt}: the flusher waits for the other holders"
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
        not find_doubt(server.data, holders),
        server.address in holders.raised,
        server.data.seq or 0,
        server.offset,
    )
