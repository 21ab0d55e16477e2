"""Decides which replicas must confirm each commit, and keeps two records that agree at every step.

    holders.json (archive)      the servers that a failover may promote: the holders
    busyapi:{0}:replicas        the replicas that must confirm each commit

At every moment each holder, other than the primary, must confirm. So the order of a change is:

    shrink     1 holders lose the server   2 commits need it no longer
    grow       1 commits need the server   2 it confirms all commits so far   3 it becomes a holder

If the flusher dies between two steps, the holders are too few, never too many. An unreachable
server may leave, because no Sentinel promotes it: every server has `replica-priority 0`, and only
this flusher raises it (`failover`). docs/explanation/replication.md gives the reasons.
"""

import asyncio
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import DurabilityNotMet, NotSeeded
from busyapi.failpoints import failpoint
from busyapi.flusher.failover import Failover, HolderPromoter
from busyapi.flusher.handover import Handover
from busyapi.flusher.holder_check import (
    find_missing_data,
    find_predecessors,
    has_restarted,
    read_evidence,
    require_decision,
)
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.replica_servers import ReplicaServers, find_confirming, find_refusal
from busyapi.flusher.retry import DecisionTimer, LastingProblem
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import is_working
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import ReplicaRecord, describe_servers, describe_unconfirmed
from busyapi.stream.sentinel import read_primary
from busyapi.stream.successor import replace_successors

log = structlog.get_logger()

LOOK_INTERVAL_SECONDS = 0.1
"""How often the replicas are read while the flusher waits for usages."""
MAX_UNCONFIRMED_SECONDS = 5.0
"""How long replicas may take to become holders before that is reported."""


class ReplicaKeeper:
    """The decisions of one flusher about the replicas of its server."""

    def __init__(self, endpoint: Endpoint, folder: Path, tier: str, minimum: int) -> None:
        self.confirming: frozenset[str] = frozenset()
        """The replicas that must confirm and hold everything; none while commits are refused."""
        self._endpoint, self._minimum = endpoint, minimum
        self._is_enabled = tier == "replicated"
        self._record = HolderRecord(folder)
        self.failover = Failover(endpoint, HolderPromoter(endpoint, self._raise), self._record)
        self._servers = ReplicaServers(endpoint, self._record)
        self._handover = Handover(endpoint, self._raise)
        self._last: PrimaryReplicas | None = None
        """What the last decision was about, with the record that it wrote."""
        self._refusal = self._server_id = self._silent = ""
        self._predecessors: tuple[str, ...] = ()
        self._timer, self._next_look = DecisionTimer(), 0.0
        self._unconfirmed = LastingProblem(MAX_UNCONFIRMED_SECONDS)
        self._logged: object = None

    async def require_holder(
        self, partition: OwnedPartition, writer: PartitionWriter
    ) -> tuple[str, ...]:
        """Check, before the partition is seeded, that its server has all acknowledged usages.

        Return the ids of the servers for which that is proven: it is the process that confirmed
        each of their commits.

        Raises:
            DurabilityNotMet: it may lack some.
            WaitingForParent: the partition is new, and the decider of its server waits too.
        """
        self._last, self._handover.chosen, self._predecessors = None, "", ()
        if not self._is_enabled:
            if await self._record.delete():
                log.warning("holders_deleted", detail="Sentinels promote no server by themselves")
            return ()
        if writer.identity.is_copy:
            # The copy names the holders of another time. `seed` requires the server that the
            # original was seeded on, or an operator.
            await self._record.delete()
        if self._endpoint.mode == "sentinel":
            connection = partition.replicas.connection
            connection.is_replaced = partial(self._is_replaced, connection.address)
        primary = await partition.replicas.read()
        if primary.server_id != self._server_id:
            self._server_id, self._refusal = primary.server_id, ""
            self.failover.forget_refusal()
        if not partition.replicas.is_decider:
            return require_decision(partition, writer, primary)
        if await self._record.is_accepted(primary.server_id):
            # The operator's file stays until all servers hold what this one has.
            only = Holders({primary.address: primary.data.run_id})
            await self._record.add(only, partition, writer)
            log.warning("primary_accepted", server=primary.address)
            return ()
        holders = await self._record.read()
        if holders.processes and (doubt := self._find_doubt(primary, holders, writer)):
            raise DurabilityNotMet(
                f"the primary {primary.address} may lack acknowledged usages: {doubt}. These"
                f" servers had all of them: {describe_servers(holders.addresses)}. Make one of them"
                " the primary. If all are lost, run `busyapi archive accept-primary --partition"
                f" {partition.key_names.partition}`"
            )
        self._predecessors = find_predecessors(primary, holders)
        return self._predecessors

    def _find_doubt(
        self, primary: PrimaryReplicas, holders: Holders, writer: PartitionWriter
    ) -> str:
        # An address proves nothing where a service or a cluster keeps it for another server.
        if (
            self._endpoint.mode == "sentinel"
            and primary.address not in holders.addresses
            and has_restarted(primary.data, holders)
        ):
            return "it is not one of the servers that confirmed them"
        return find_missing_data(primary.data, holders, read_evidence(writer))

    async def update(self, partition: OwnedPartition, writer: PartitionWriter) -> str:
        """Inspect the replicas if due, and record changes; return why no commit is allowed.

        Raises:
            RedisUnavailable: the connection failed, the lease is lost, or a failover is needed.
            NotSeeded: the server has another history than at `require_holder`.
            ArchiveFull, FsyncFailed: the holders could not be written.
        """
        if not self._is_enabled:
            return ""
        await self.failover.require_reachable(partition, self._refusal)
        primary = await partition.replicas.read()
        if primary.server_id != self._server_id:
            # It was a replica in between: the holders must not be compared with what it lists.
            raise NotSeeded("the server's replication history has changed")
        self.failover.end()
        if not partition.replicas.is_decider:
            replace_successors(self._endpoint.successors, primary.view.listed)
            self._refusal = describe_unconfirmed(
                primary.record, primary.view, primary.server_id, self._minimum
            )
            return self._refusal
        if not primary.is_unchanged(self._last) or self._timer.is_due:
            self._refusal = await self._decide(partition, writer, primary)
        if self._handover.is_due(partition):
            holders = await self._record.read()
            await self._handover.run_step(partition, primary, holders, self._refusal)
        return self._refusal

    async def is_due(self, partition: OwnedPartition) -> bool:
        """Return whether `update` has something to do; it asks the primary ten times a second.

        Raises:
            RedisUnavailable: the connection failed, or the server is not a primary.
        """
        now = monotonic()
        if not self._is_enabled or now < self._next_look:
            return False
        self._next_look = now + LOOK_INTERVAL_SECONDS
        if not partition.replicas.is_decider:
            return bool(self._refusal)
        if self._handover.is_due(partition):
            return True
        if not self._timer.is_settled:
            return self._timer.is_due
        return not (await partition.replicas.read()).is_unchanged(self._last)

    async def _decide(
        self, partition: OwnedPartition, writer: PartitionWriter, primary: PrimaryReplicas
    ) -> str:
        holders = await self._record.read()
        if holders.raised and await self._record.is_accepted(primary.server_id):
            # The operator has given up the server that a failover may still promote.
            holders = await self._record.remove(holders._replace(raised=frozenset()))
        report = await self._servers.inspect(partition, primary, holders)
        await self.failover.note_report(partition, primary.address, report, holders)
        holders, problem = await self._servers.clear_raised(
            holders, primary, report, keep=self._handover.chosen
        )
        confirming = find_confirming(report, primary)
        refusal = problem or find_refusal(report, primary, holders, confirming, self._minimum)
        processes = {primary.address: primary.data.run_id} | {
            address: report.servers[address].data.run_id or holders.processes.get(address, "")
            for address in confirming
        }
        refusal = await self._write(partition, writer, primary, processes, refusal)
        if primary.silent and not refusal:
            # They must not confirm any more. But commits wait for every replica that is online.
            log.warning("replica_silent", servers=sorted(primary.silent))
            await partition.replicas.disconnect_replicas()
        return refusal

    async def _write(
        self,
        partition: OwnedPartition,
        writer: PartitionWriter,
        primary: PrimaryReplicas,
        processes: dict[str, str],
        refusal: str,
    ) -> str:
        """Write both records in the order that keeps the rule."""
        holders = await self._record.read()
        confirming = frozenset(processes) - {primary.address}
        record = ReplicaRecord(
            primary.server_id, confirming, primary.view.syncs, refusal, self._predecessors
        )
        is_written = (holders.processes, holders.replid) == (processes, primary.replid)
        is_done = record == primary.record and (refusal or is_written)
        if not is_done and not refusal:
            # First: from here on the server that leaves is never promoted.
            items = holders.processes.items()
            kept = {address: run_id for address, run_id in items if address in processes}
            holders = await self._record.remove(holders._replace(processes=kept))
        problem = ""
        if not is_done:
            failpoint("replicas-before-record")
            # At an install there are no holders yet, and a failover would have to wait for them.
            after_failover = self._last is None and bool(holders.processes)
            problem = await partition.replicas.write(record, primary, after_failover=after_failover)
            failpoint("replicas-after-record")
        if not is_done and not refusal and not problem:
            # Last: the new holders have confirmed everything that was committed before the record.
            seq = Seq(max(holders.seq, primary.data.seq or 0))
            grown = holders._replace(processes=processes, seq=seq, replid=primary.replid)
            holders = await self._record.add(grown, partition, writer)
        self._report(primary, holders, confirming, refusal)
        self._last = primary._replace(record=record)
        is_settled = not refusal and not problem and holders.processes == processes
        if is_settled and await self._record.is_accepted(primary.server_id):
            await self._record.end_acceptance()
        self._timer.record(settled=is_settled)
        if self._unconfirmed.has_lasted(problem) and not refusal:
            return f"the replicas do not confirm the record of the flusher: {problem}"
        return refusal

    def _report(
        self,
        primary: PrimaryReplicas,
        holders: Holders,
        confirming: frozenset[str],
        refusal: str,
    ) -> None:
        shown = frozenset() if refusal else confirming
        self.confirming = shown & holders.addresses - {primary.address}
        if self._logged != (state := (shown, holders.addresses)):
            self._logged = state
            log.warning(
                "replicas_changed",
                confirming=sorted(shown),
                holders=sorted(holders.addresses),
                detail=refusal,
            )

    async def fail_over(
        self, writer: PartitionWriter, stopping: asyncio.Event, *, is_lost: bool
    ) -> str:
        """Make the Sentinels promote a holder if they find the primary down: see `Failover.run`."""
        if not self._is_enabled or self._endpoint.mode != "sentinel" or writer.identity.is_copy:
            return ""
        run_id = self._server_id.partition("-")[0]
        silent, self._silent = self._silent, ""
        return await self.failover.run(writer, stopping, run_id, is_lost=is_lost, silent=silent)

    async def _is_replaced(self, address: str) -> bool:
        """Return whether the primary, which does not reply, is down or has been replaced."""
        primary, works = await asyncio.gather(
            read_primary(self._endpoint), is_working(self._endpoint, address)
        )
        if primary is not None and primary.address == address and not works:
            # The Sentinels will find it down: a holder must be promotable at that moment.
            self._silent = address if works is None else ""
            return True
        return await self._endpoint.has_successor(address)

    async def _raise(self, address: str, failover_seconds: float) -> None:
        self._servers.expect_failover(address, failover_seconds)
        holders = await self._record.read()
        raised = holders.raised | {address}
        await self._record.remove(holders._replace(raised=raised))
        # This flusher waits for these only: no other server may become the primary.
        replace_successors(self._endpoint.successors, raised)
        failpoint("failover-after-choice")
