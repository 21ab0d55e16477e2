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

from pathlib import Path
from time import monotonic

import structlog

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import (
    ArchiveDamaged,
    ArchiveFull,
    DurabilityNotMet,
    NotSeeded,
    RedisUnavailable,
)
from busyapi.failpoints import failpoint
from busyapi.flusher.failover import HolderPromoter
from busyapi.flusher.holder_check import ArchiveEvidence, find_missing_data, has_restarted
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.replica_servers import ReplicaServers, find_confirming, find_refusal
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import ReplicaRecord, describe_servers, describe_unconfirmed
from busyapi.stream.sentinel import find_down_primary

log = structlog.get_logger()

INSPECT_INTERVAL_SECONDS = 5.0
"""How often unchanged replicas are inspected: their settings may be changed at any time."""
RETRY_INTERVAL_SECONDS = 0.2
MIN_REFUSED_SECONDS = 1.0
"""How long commits may be refused before the Sentinels are asked about the primary. After a
failover they are for less."""
MIN_BLOCKED_SECONDS = 3.0
"""How long a failover may be impossible before that is logged."""
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
        self._servers = ReplicaServers(endpoint, self._record)
        self._promoter = HolderPromoter(endpoint, self._raise)
        self._last: PrimaryReplicas | None = None
        """What the last decision was about, with the record that it wrote."""
        self._refusal = self._server_id = self._blocked = ""
        self._next_decision = 0.0
        self._refused_since: float | None = None
        self._unconfirmed_since: float | None = None
        self._blocked_since: float | None = None
        self._logged: object = None

    async def require_holder(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        """Check, before the partition is seeded, that its server has all acknowledged usages.

        Raises:
            DurabilityNotMet: it may lack some.
        """
        self._last = None
        if not self._is_enabled:
            if await self._record.delete():
                log.warning("holders_deleted", detail="Sentinels promote no server by themselves")
            return
        if writer.identity.is_copy:
            # The copy names the holders of another time. `seed` requires the server that the
            # original was seeded on, or an operator.
            await self._record.delete()
        primary = await partition.replicas.read()
        if primary.server_id != self._server_id:
            self._refused_since = None
        self._server_id = primary.server_id
        if not partition.replicas.is_decider:
            if primary.record is None or primary.record.server_id != primary.server_id:
                raise DurabilityNotMet(
                    "the flusher of partition 0 has not yet accepted the server"
                    f" {primary.address}: see its /readyz"
                )
            return
        if await self._record.is_accepted(primary.server_id):
            # The operator's file stays until all servers hold what this one has.
            only = Holders({primary.address: primary.data.run_id})
            await self._record.add(only, partition, writer)
            log.warning("primary_accepted", server=primary.address)
            return
        holders = await self._record.read()
        if holders.processes and (doubt := self._find_doubt(primary, holders, writer)):
            raise DurabilityNotMet(
                f"the primary {primary.address} may lack acknowledged usages: {doubt}. These"
                f" servers had all of them: {describe_servers(holders.addresses)}. Make one of them"
                " the primary. If all are lost, run `busyapi archive accept-primary --partition"
                f" {partition.key_names.partition}`"
            )

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
        return find_missing_data(primary.data, holders, _read_evidence(writer))

    async def update(self, partition: OwnedPartition, writer: PartitionWriter) -> str:
        """Inspect the replicas if due, and record changes; return why no commit is allowed.

        Raises:
            RedisUnavailable: the connection failed, the lease is lost, or a failover is needed.
            NotSeeded: the server has another history than at `require_holder`.
            ArchiveFull, FsyncFailed: the holders could not be written.
        """
        if not self._is_enabled:
            return ""
        await self._require_reachable(partition)
        primary = await partition.replicas.read()
        if primary.server_id != self._server_id:
            # It was a replica in between: the holders must not be compared with what it lists.
            raise NotSeeded("the server's replication history has changed")
        self._blocked, self._blocked_since = "", None
        if not partition.replicas.is_decider:
            self._refusal = describe_unconfirmed(
                primary.record, primary.view, primary.server_id, self._minimum
            )
        elif not primary.is_unchanged(self._last) or monotonic() >= self._next_decision:
            self._refusal = await self._decide(partition, writer, primary)
        self._refused_since = (self._refused_since or monotonic()) if self._refusal else None
        return self._refusal

    async def _require_reachable(self, partition: OwnedPartition) -> None:
        """While commits are refused, check that the Sentinels do not find the primary down.

        The network may have failed between it and all other servers, and not between it and this
        process: without a failover, commits would be refused until the network is repaired.

        Raises:
            RedisUnavailable: the Sentinels find the primary down.
        """
        since = self._refused_since
        if since is None or self._endpoint.mode != "sentinel":
            return
        if monotonic() - since < MIN_REFUSED_SECONDS:
            return
        if down := await partition.await_with_lease(find_down_primary(self._endpoint)):
            raise RedisUnavailable(
                f"the Sentinels find the primary {down.address} down: {self._refusal}"
            )

    async def _decide(
        self, partition: OwnedPartition, writer: PartitionWriter, primary: PrimaryReplicas
    ) -> str:
        holders = await self._record.read()
        if holders.raised and await self._record.is_accepted(primary.server_id):
            # The operator has given up the server that a failover may still promote.
            holders = await self._record.remove(holders._replace(raised=frozenset()))
        report = await self._servers.inspect(partition, primary, holders)
        holders, problem = await self._servers.clear_raised(holders, primary, report)
        confirming = find_confirming(report, primary)
        refusal = problem or find_refusal(report, primary, holders, confirming, self._minimum)
        processes = {primary.address: primary.data.run_id} | {
            address: report.servers[address].data.run_id or holders.processes.get(address, "")
            for address in confirming
        }
        return await self._write(partition, writer, primary, processes, refusal)

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
        record = ReplicaRecord(primary.server_id, confirming, primary.view.syncs, refusal)
        is_done = record == primary.record and (refusal or holders.processes == processes)
        if not is_done and not refusal:
            # First: from here on the server that leaves is never promoted.
            kept = {
                address: run_id
                for address, run_id in holders.processes.items()
                if address in processes
            }
            holders = await self._record.remove(holders._replace(processes=kept))
        problem = ""
        if not is_done:
            failpoint("replicas-before-record")
            problem = await partition.replicas.write(record, primary)
            failpoint("replicas-after-record")
        if not is_done and not refusal and not problem:
            # Last: the new holders have confirmed everything that was committed before the record.
            seq = Seq(max(holders.seq, primary.data.seq or 0))
            grown = holders._replace(processes=processes, seq=seq)
            holders = await self._record.add(grown, partition, writer)
        self._report(primary, holders, confirming, refusal)
        self._last = primary._replace(record=record)
        is_settled = not refusal and not problem and holders.processes == processes
        if is_settled and await self._record.is_accepted(primary.server_id):
            await self._record.end_acceptance()
        self._next_decision = monotonic() + (
            INSPECT_INTERVAL_SECONDS if is_settled else RETRY_INTERVAL_SECONDS
        )
        return refusal or self._find_lasting(problem)

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

    def _find_lasting(self, problem: str) -> str:
        """Return why replicas have not become holders, if that lasts."""
        now = monotonic()
        if not problem:
            self._unconfirmed_since = None
        elif self._unconfirmed_since is None:
            self._unconfirmed_since = now
        elif now - self._unconfirmed_since > MAX_UNCONFIRMED_SECONDS:
            return f"the replicas do not confirm the record of the flusher: {problem}"
        return ""

    async def fail_over(self, writer: PartitionWriter) -> str:
        """If the Sentinels find the primary down, make them promote a holder; never waits long.

        Return why no failover starts although it should, "" otherwise.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        if not self._is_enabled or self._endpoint.mode != "sentinel" or writer.identity.is_copy:
            return ""
        try:
            holders = await self._record.read(again=True)
            if not holders.processes:  # another flusher decides, or none has decided yet
                return ""
            blocked = await self._promoter.promote(holders, _read_evidence(writer))
        except (ArchiveFull, ArchiveDamaged) as error:
            blocked = str(error)
        self._report_blocked(blocked)
        return f"no failover: {blocked}" if blocked else ""

    def _report_blocked(self, blocked: str) -> None:
        """Log why no failover starts, if that lasts longer than a Sentinel takes to notice."""
        now = monotonic()
        if not blocked:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = now
        elif blocked != self._blocked and now - self._blocked_since > MIN_BLOCKED_SECONDS:
            log.warning("failover_blocked", detail=blocked)
            self._blocked = blocked

    async def _raise(self, address: str, failover_seconds: float) -> None:
        self._servers.expect_failover(address, failover_seconds)
        holders = await self._record.read()
        await self._record.remove(holders._replace(raised=holders.raised | {address}))
        failpoint("failover-after-choice")


def _read_evidence(writer: PartitionWriter) -> ArchiveEvidence:
    return ArchiveEvidence(writer.identity.archive_id, writer.stats.last_usage)
