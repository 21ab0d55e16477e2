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
from contextlib import suppress
from pathlib import Path
from time import monotonic

import structlog

from busyapi.archive.holders import Holders, delete_holders, read_holders, write_holders
from busyapi.errors import ArchiveDamaged, ArchiveFull, DurabilityNotMet, NotSeeded
from busyapi.flusher.failover import promote_holder
from busyapi.stream.cluster import list_replicas
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import ReplicaServer, inspect_replica
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import (
    ReplicaRecord,
    describe_servers,
    describe_too_few,
    describe_unconfirmed,
)
from busyapi.stream.sentinel import list_promotable

log = structlog.get_logger()

INSPECT_INTERVAL_SECONDS = 5.0
"""How often unchanged replicas are inspected: their settings may be changed at any time."""
RETRY_INTERVAL_SECONDS = 0.2


class ReplicaKeeper:
    """The decisions of one flusher about the replicas of its server."""

    def __init__(self, endpoint: Endpoint, folder: Path, tier: str, minimum: int) -> None:
        self.confirming: frozenset[str] = frozenset()
        """The replicas that must confirm; none while commits are refused."""
        self._endpoint, self._folder, self._minimum = endpoint, folder, minimum
        self._is_enabled = tier == "replicated"
        self._holders: Holders | None = None
        self._last: PrimaryReplicas | None = None
        """What the last decision was about, with the record that it wrote."""
        self._refusal = self._server_id = ""
        self._next_decision = 0.0
        self._lowered_at: dict[str, float] = {}

    async def require_holder(self, partition: OwnedPartition) -> None:
        """Check, before the partition is seeded, that its server has all acknowledged usages.

        Raises:
            DurabilityNotMet: it may lack some.
        """
        self._last = None
        if not self._is_enabled:
            await asyncio.to_thread(delete_holders, self._folder)
            return
        primary = await partition.replicas.read()
        self._server_id = primary.server_id
        if not partition.replicas.is_decider:
            if primary.record is None or primary.record.server_id != primary.server_id:
                raise DurabilityNotMet(
                    "the flusher of partition 0 has not yet accepted the server"
                    f" {primary.address}: see its /readyz"
                )
            return
        holders = (await self._read_holders()).holders
        if holders and primary.address not in holders and not partition.is_standalone:
            raise DurabilityNotMet(
                f"the primary {primary.address} may lack acknowledged usages: only"
                f" {describe_servers(holders)} have all. Make one of them the primary; if all are"
                f" lost, stop the flusher and delete {self._folder / 'holders.json'}"
            )

    async def update(self, partition: OwnedPartition) -> str:
        """Inspect the replicas if due, and record changes; return why no commit is allowed.

        Raises:
            RedisUnavailable: the connection failed, or the lease is lost.
            NotSeeded: the server has another history than at `require_holder`.
            ArchiveFull, FsyncFailed: the holders could not be written.
        """
        if not self._is_enabled:
            return ""
        primary = await partition.replicas.read()
        if primary.server_id != self._server_id:
            # It was a replica in between: the holders must not be compared with what it lists.
            raise NotSeeded("the server's replication history has changed")
        if not partition.replicas.is_decider:
            return describe_unconfirmed(
                primary.record, primary.view, primary.server_id, self._minimum
            )
        if primary != self._last or monotonic() >= self._next_decision:
            self._refusal = await self._decide(partition, primary)
        return self._refusal

    async def _decide(self, partition: OwnedPartition, primary: PrimaryReplicas) -> str:
        store, endpoint = partition.replicas, self._endpoint
        holders = await self._read_holders()
        is_cluster = endpoint.mode == "cluster"
        promotable: frozenset[str] = frozenset()
        if endpoint.mode == "sentinel":
            promotable = await partition.await_with_lease(list_promotable(endpoint))
        refusal = "" if is_cluster else await store.make_primary_unpromotable()
        addresses = (primary.view.listed | holders.raised | promotable) - {primary.address}
        servers = await partition.await_with_lease(
            _inspect_all(endpoint, addresses, lower=not is_cluster)
        )
        if not refusal:
            holders = await self._clear_raised(holders, primary, servers)
        confirming = frozenset(
            address for address in primary.view.online if _may_confirm(servers[address], primary)
        )
        if is_cluster:
            refusal = await _find_promotable_in_cluster(partition, confirming)
        else:
            refusal = refusal or _find_promotable(servers, primary)
        refusal = refusal or self._find_refusal(servers, primary, holders, confirming)
        return await self._record(partition, primary, holders, confirming, refusal)

    def _find_refusal(
        self,
        servers: dict[str, ReplicaServer],
        primary: PrimaryReplicas,
        holders: Holders,
        confirming: frozenset[str],
    ) -> str:
        for address in primary.view.online:
            server = servers[address]
            if server.was_reached and server.problem and not server.is_settling:
                return server.problem
        if len(confirming) < self._minimum:
            reasons = [
                server.problem or f"{server.address} loads data or rewrites its append-only file"
                for server in servers.values()
                if server.problem or server.is_settling
            ]
            return "; ".join([describe_too_few(confirming, self._minimum), *reasons])
        if lost := holders.raised - confirming - {primary.address}:
            return (
                f"{describe_servers(lost)} may still be promoted by the last failover, and does not"
                " confirm: start it"
            )
        return ""

    async def _record(
        self,
        partition: OwnedPartition,
        primary: PrimaryReplicas,
        holders: Holders,
        confirming: frozenset[str],
        refusal: str,
    ) -> str:
        record = ReplicaRecord(primary.server_id, confirming, primary.view.syncs, refusal)
        target = confirming | {primary.address}
        is_done = record == primary.record and (refusal or holders.holders == target)
        if not is_done and not refusal:
            # First: from here on the server that leaves is never promoted.
            holders = await self._write_holders(holders, holders.holders & target)
        problem = ""
        if not is_done:
            problem = await partition.replicas.write(record, primary)
        if not is_done and not refusal and not problem:
            # Last: the new holders have confirmed everything that was committed before the record.
            holders = await self._write_holders(holders, target)
        if self.confirming != (shown := frozenset() if refusal else confirming):
            self.confirming = shown
            log.warning(
                "replicas_changed",
                confirming=sorted(shown),
                holders=sorted(holders.holders),
                detail=refusal,
            )
        is_settled = not refusal and not problem and holders.holders == target
        self._last = primary._replace(record=record)
        self._next_decision = monotonic() + (
            INSPECT_INTERVAL_SECONDS if is_settled else RETRY_INTERVAL_SECONDS
        )
        return refusal

    async def _clear_raised(
        self, holders: Holders, primary: PrimaryReplicas, servers: dict[str, ReplicaServer]
    ) -> Holders:
        """Forget the servers whose priority is 0 again, once no failover can have chosen them."""
        now = monotonic()
        cleared = set()
        for address in holders.raised:
            if address == primary.address:
                cleared.add(address)  # its priority is 0 again, and it was promoted
            elif (server := servers.get(address)) and server.is_unpromotable:
                if now - self._lowered_at.setdefault(address, now) > self._failover_seconds:
                    cleared.add(address)
            else:
                self._lowered_at.pop(address, None)
        if not cleared:
            return holders
        return await self._write_holders(
            holders._replace(raised=holders.raised - cleared), holders.holders
        )

    _failover_seconds = 360.0
    """How long a Sentinel may continue a failover: twice its `failover-timeout`."""

    async def fail_over(self) -> None:
        """If the Sentinels find the primary down, make them promote a holder; never waits long.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        if not self._is_enabled or self._endpoint.mode != "sentinel":
            return
        with suppress(ArchiveFull, ArchiveDamaged):  # the next step reports them
            await promote_holder(self._endpoint, await self._read_holders(), self._raise)

    async def _raise(self, address: str, failover_seconds: float) -> None:
        self._failover_seconds = 2 * failover_seconds
        self._lowered_at.pop(address, None)
        holders = await self._read_holders()
        await self._write_holders(
            holders._replace(raised=holders.raised | {address}), holders.holders
        )

    async def _read_holders(self) -> Holders:
        if self._holders is None:
            self._holders = await asyncio.to_thread(read_holders, self._folder)
        return self._holders

    async def _write_holders(self, holders: Holders, servers: frozenset[str]) -> Holders:
        changed = holders._replace(holders=servers)
        if changed != self._holders:
            await asyncio.to_thread(write_holders, self._folder, changed)
            self._holders = changed
        return changed


async def _inspect_all(
    endpoint: Endpoint, addresses: frozenset[str], *, lower: bool
) -> dict[str, ReplicaServer]:
    servers = await asyncio.gather(
        *(inspect_replica(endpoint, address, lower=lower) for address in addresses)
    )
    return {server.address: server for server in servers}


def _may_confirm(server: ReplicaServer, primary: PrimaryReplicas) -> bool:
    """Return whether a replica that is online may confirm commits."""
    record = primary.record
    is_known = (
        record is not None
        and record.server_id == primary.server_id
        and record.syncs == primary.view.syncs
        and server.address in record.confirming
    )
    if not server.was_reached:
        # Its connection to the primary is the one that was inspected before.
        return is_known
    # A rewrite of the append-only file is harmless later: then the file is active.
    return not server.problem and (is_known or not server.is_settling)


def _find_promotable(servers: dict[str, ReplicaServer], primary: PrimaryReplicas) -> str:
    """Return which server a Sentinel may promote without the flusher, "" if there is none."""
    for server in servers.values():
        if not server.is_unpromotable and not _may_confirm(server, primary):
            return server.problem or f"set `replica-priority 0` on {server.address}"
    return ""


async def _find_promotable_in_cluster(partition: OwnedPartition, confirming: frozenset[str]) -> str:
    """Return which node the cluster may promote although it does not confirm."""
    nodes = await list_replicas(partition.replicas.connection)
    if others := nodes - confirming:
        return (
            f"the cluster may promote {describe_servers(others)}, which cannot confirm: repair it,"
            " or remove it with CLUSTER FORGET"
        )
    return ""
