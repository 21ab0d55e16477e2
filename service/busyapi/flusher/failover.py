"""Promotes a server that holds every acknowledged usage, after the loss of the primary.

Sentinels detect the loss and change the roles, but choose no server by themselves: every server
has `replica-priority 0`. The flusher chooses a holder, records the choice, raises the holder's
priority, and starts the failover. When the Sentinels have finished that, the priority becomes 0
again (`replica_servers`). Until then the server remains on record as one that may be promoted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import NamedTuple

import structlog

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveDamaged, ArchiveFull, RedisUnavailable
from busyapi.failpoints import failpoint
from busyapi.flusher.holder_check import ArchiveEvidence, read_evidence
from busyapi.flusher.holder_choice import choose_holder
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.replica_servers import ServerReport
from busyapi.flusher.retry import LastingProblem
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import (
    inspect_replica,
    is_working,
    raise_priority,
)
from busyapi.stream.sentinel import SentinelPrimary, read_primary
from busyapi.stream.sentinel_failover import repeat_failover, start_failover

log = structlog.get_logger()

WAIT_FOR_HOLDERS_SECONDS = 30.0
"""How long to wait for the other holders if all that are reached have restarted. After a power cut
they start one after the other, and one of them may have an older volume."""
FAILOVER_INTERVAL_SECONDS = 0.05
"""How often the Sentinels are asked during a failover."""
MAX_FAILOVER_STEP_SECONDS = 3.0
"""How long the flusher waits for a failover before it tries to connect again."""
MIN_REFUSED_SECONDS = 1.0
"""How long commits may be refused before the Sentinels are asked about the primary. After a
failover they are for less."""
MIN_BLOCKED_SECONDS = 3.0
"""How long a failover may be impossible before that is logged."""


class Promotion(NamedTuple):
    """What one call of `promote` did."""

    blocked: str = ""
    """Why the primary is down and no failover starts, "" otherwise."""
    is_pending: bool = False
    """The primary does not work, and no other is promoted yet."""


class HolderPromoter:
    """Makes Sentinels promote a holder. It remembers since when it has waited for others."""

    def __init__(
        self, endpoint: Endpoint, record_choice: Callable[[str, float], Awaitable[None]]
    ) -> None:
        self._endpoint, self._record_choice = endpoint, record_choice
        self._down = LastingProblem(WAIT_FOR_HOLDERS_SECONDS)
        self.lost = ""
        """The primary that did not work when it was asked last, "" if it did."""

    async def promote(
        self,
        holders: Holders,
        archive: ArchiveEvidence,
        own_run_id: str,
        *,
        is_lost: bool,
        silent: str = "",
    ) -> Promotion:
        """Make the Sentinels promote a holder if they find the primary down; call it until they do.

        `is_lost` says that this flusher cannot reach the primary. Then the priority is raised
        before the Sentinels agree: at that moment they read it, and later only once a second. They
        promote no server before they agree, and the holder must confirm all commits until then.
        `silent` is the address of a primary that was just asked in vain.
        """
        endpoint = self._endpoint
        primary = await read_primary(endpoint)
        if primary is None or not await self._is_lost(primary, silent, is_lost=is_lost):
            self._down.end()
            self.lost = ""
            return Promotion()
        self.lost = primary.address
        may_wait = not self._down.has_lasted("the primary is down")
        key_names = endpoint.decider_keys
        servers = await asyncio.gather(
            *(
                inspect_replica(endpoint, address, key_names)
                for address in sorted(holders.addresses - {primary.address})
            )
        )
        if any(server.is_primary and server.data.run_id == own_run_id for server in servers):
            return Promotion()  # this flusher uses it already
        chosen, reason = choose_holder(
            list(servers),
            holders,
            archive,
            may_wait=may_wait,
            is_failing_over=primary.is_failing_over,
        )
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
            return Promotion(is_pending=True)
        return Promotion(await start_failover(endpoint, primary), is_pending=True)

    async def _is_lost(self, primary: SentinelPrimary, silent: str, *, is_lost: bool) -> bool:
        # The next call must come soon: it may be the one that starts the failover.
        was_lost = primary.is_suspected and primary.address == self.lost
        if primary.is_down or was_lost or primary.address == silent:
            return True
        works = await is_working(self._endpoint, primary.address)
        # One that only refuses may restart, or be a replica already.
        return works is None or (not works and (primary.is_suspected or is_lost))


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
        self._logged = self._promoter.lost = ""
        self._blocking.end()

    async def run(
        self,
        writer: PartitionWriter,
        stopping: asyncio.Event,
        own_run_id: str,
        *,
        is_lost: bool,
        silent: str,
    ) -> str:
        """Promote a holder if the Sentinels find the primary down; wait some seconds for that.

        `is_lost` and `silent` are as for `HolderPromoter.promote`. Return why no failover starts
        although it should, "" otherwise.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        end = monotonic() + MAX_FAILOVER_STEP_SECONDS
        promote = partial(self._promote, writer, own_run_id, is_lost=is_lost)
        promotion = await promote(silent=silent)
        # The primary would not answer. So do not connect to it meanwhile.
        while promotion.is_pending and monotonic() < end and not stopping.is_set():
            await asyncio.sleep(FAILOVER_INTERVAL_SECONDS)
            promotion = await promote()
        self.obstacle = blocked = promotion.blocked
        if self._blocking.has_lasted(blocked) and blocked != self._logged:
            log.warning("failover_blocked", detail=blocked)
            self._logged = blocked
        return f"no failover: {blocked}" if blocked else ""

    async def _promote(
        self, writer: PartitionWriter, own_run_id: str, *, is_lost: bool, silent: str = ""
    ) -> Promotion:
        try:
            holders = await self._record.read(again=True)
            if not holders.processes:  # another flusher decides, or none has decided yet
                return Promotion()
            evidence = read_evidence(writer)
            return await self._promoter.promote(
                holders, evidence, own_run_id, is_lost=is_lost, silent=silent
            )
        except (ArchiveFull, ArchiveDamaged) as error:
            return Promotion(str(error))
