"""The servers around a primary as one decision sees them: inspected, listed, and who may promote.

the primary     which replicas are connected to it
each server     its settings and state
the Sentinels   which replicas they know, and which ones they may promote by themselves
the cluster     which replicas its nodes know, each of which they may promote
"""

import asyncio
from time import monotonic
from typing import NamedTuple

import structlog

from busyapi.archive.holders import Holders
from busyapi.flusher.holder_record import HolderRecord
from busyapi.stream.cluster import list_replicas
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import (
    PRIORITY,
    UNPROMOTABLE,
    ReplicaServer,
    ServerData,
    inspect_replica,
    lower_priority,
)
from busyapi.stream.replica_store import SILENCE, PrimaryReplicas, describe_promotable
from busyapi.stream.replicas import describe_servers, describe_too_few
from busyapi.stream.sentinel_view import SentinelView, read_view

log = structlog.get_logger()

LONG_SILENCE_SECONDS = 10
"""Longer than a short interruption of the network."""


class ServerReport(NamedTuple):
    """What an inspection of all servers found."""

    servers: dict[str, ReplicaServer]
    refusal: str = ""
    """Why the primary itself allows no commit."""
    mode: str = "standalone"
    """As `Endpoint.mode`."""
    view: SentinelView | None = None
    """None without Sentinels, or if none of them answers."""
    cluster: frozenset[str] = frozenset()
    """The replicas that a cluster may promote."""


class ReplicaServers:
    """Inspects the servers around a primary, and changes their priorities."""

    def __init__(self, endpoint: Endpoint, record: HolderRecord) -> None:
        self._endpoint, self._record = endpoint, record
        self._tested: set[str] = set()
        """The processes whose priority the flusher may set, by run_id."""
        self._failover_seconds, self._logged_seconds = 360.0, 0
        """The first: how long a Sentinel may continue a failover, twice its `failover-timeout`."""
        self._lowered_at: dict[str, float] = {}

    def expect_failover(self, address: str, failover_seconds: float) -> None:
        """Remember that Sentinels may promote a server from now on."""
        self._failover_seconds = 2 * failover_seconds
        self._lowered_at.pop(address, None)

    async def inspect(
        self, partition: OwnedPartition, primary: PrimaryReplicas, holders: Holders
    ) -> ServerReport:
        """Inspect every server that the primary lists or that may be promoted.

        Raises:
            RedisUnavailable, LeaseLost, ArchiveTakenOver: as `await_with_lease`.
        """
        endpoint, store = self._endpoint, partition.replicas
        is_sentinel = endpoint.mode == "sentinel"
        view, cluster, refusal = None, frozenset[str](), ""
        if is_sentinel:
            view = await partition.await_with_lease(read_view(endpoint))
        if endpoint.mode == "cluster":
            cluster = await partition.await_with_lease(list_replicas(endpoint, store.connection))
        else:
            refusal = self._check_primary(primary.address, holders, await store.read_settings())
        promotable = view.promotable if view else frozenset()
        addresses = (primary.view.listed | holders.raised | promotable) - {primary.address}
        inspected = await partition.await_with_lease(
            _inspect_all(endpoint, addresses, partition, primary)
        )
        servers = {server.address: server for server in inspected}
        if is_sentinel and not refusal:
            test = self._test_rights(primary.address, primary.data)
            refusal = await partition.await_with_lease(test)
            for server in inspected:
                is_healthy = not server.problem and server.replid == primary.replid
                if is_healthy and server.is_unpromotable:
                    test = self._test_rights(server.address, server.data)
                    problem = await partition.await_with_lease(test)
                    servers[server.address] = server._replace(problem=problem)
        return ServerReport(servers, refusal, endpoint.mode, view, cluster)

    def _check_primary(self, address: str, holders: Holders, settings: dict[str, str]) -> str:
        """Return why a Sentinel could promote the primary after its loss, "" if none could."""
        if not settings:
            return f"Redis does not allow CONFIG GET on {address}, so {PRIORITY} cannot be checked"
        seconds = int(settings[SILENCE])
        if seconds > LONG_SILENCE_SECONDS and seconds != self._logged_seconds:
            log.warning("replica_timeout_long", seconds=seconds)
        self._logged_seconds = seconds
        is_promotable = settings[PRIORITY] != str(UNPROMOTABLE) and address not in holders.raised
        return describe_promotable(address) if is_promotable else ""

    async def _test_rights(self, address: str, data: ServerData) -> str:
        """Return why a failover could not change the priority of a server, which is 0.

        Each process is asked once: missing rights must show before they are needed.
        """
        if data.run_id in self._tested or address in self._lowered_at:
            return ""
        if not (problem := await lower_priority(self._endpoint, address)):
            self._tested.add(data.run_id)
        return problem

    async def clear_raised(
        self, holders: Holders, primary: PrimaryReplicas, report: ServerReport, keep: str
    ) -> tuple[Holders, str]:
        """Set the priority of raised servers but `keep` back to 0, and forget them once final.

        A server is forgotten when its priority is 0 for good and no Sentinel executes the failover:
        all say so, or its time is over. Return the holders, and why the primary's is not 0.

        Raises:
            ArchiveFull, FsyncFailed: the holders could not be written.
        """
        cleared, problem, now = set(), "", monotonic()
        for address in holders.raised - {keep}:
            is_primary = address == primary.address
            if is_primary and report.view and not report.view.has_promoted(address):
                continue  # Sentinels that name another one must still be able to promote it
            server = report.servers.get(address)
            if not is_primary and not (server and _is_same_server(server, primary, holders)):
                self._lowered_at.pop(address, None)
                continue
            if server and not server.is_unpromotable:
                self._lowered_at.pop(address, None)
            was_lowered = address in self._lowered_at
            if not was_lowered:
                if failure := await lower_priority(self._endpoint, address):
                    problem = problem or failure
                    continue
                self._lowered_at[address] = now
            is_idle = was_lowered and report.view is not None and address in report.view.idle
            if is_primary or is_idle or now - self._lowered_at[address] > self._failover_seconds:
                cleared.add(address)
        if cleared:
            for address in cleared:
                self._lowered_at.pop(address)
            holders = await self._record.remove(holders._replace(raised=holders.raised - cleared))
        return holders, problem


def _is_same_server(server: ReplicaServer, primary: PrimaryReplicas, holders: Holders) -> bool:
    """Return whether the server at an address is the one that was a holder there."""
    return server.was_reached and (
        server.replid == primary.replid or server.data.run_id in holders.processes.values()
    )


async def _inspect_all(
    endpoint: Endpoint,
    addresses: frozenset[str],
    partition: OwnedPartition,
    primary: PrimaryReplicas,
) -> list[ReplicaServer]:
    servers = await asyncio.gather(
        *(inspect_replica(endpoint, address, partition.key_names) for address in addresses)
    )
    return [_check_history(server, primary) for server in servers]


def _check_history(server: ReplicaServer, primary: PrimaryReplicas) -> ReplicaServer:
    """Add a problem if another server is at the address: behind NAT, or after a change of pods."""
    is_other = server.was_reached and server.replid != primary.replid
    if server.problem or server.is_settling or not is_other:
        return server
    problem = (
        f"the server at {server.address} does not replicate the primary, which lists this address:"
        " set `replica-announce-ip` on its replica"
    )
    return server._replace(problem=problem)


def find_confirming(report: ServerReport, primary: PrimaryReplicas) -> frozenset[str]:
    """Return the replicas that are online and may confirm commits."""
    return frozenset(
        address
        for address in set(primary.view.online) - primary.silent
        if _may_confirm(report.servers[address], primary)
        and (_is_known(address, primary) or not _find_unlisted(address, report))
    )


def _is_known(address: str, primary: PrimaryReplicas) -> bool:
    """Return whether a replica must confirm already, on the connection that was inspected."""
    record = primary.record
    return (
        record is not None
        and record.server_id == primary.server_id
        and record.syncs == primary.view.syncs
        and address in record.confirming
    )


def _may_confirm(server: ReplicaServer, primary: PrimaryReplicas) -> bool:
    is_known = _is_known(server.address, primary)
    if not server.was_reached:
        return is_known
    # A rewrite of the append-only file is harmless later: then the file is active.
    return not server.problem and (is_known or not server.is_settling)


def _find_unlisted(address: str, report: ServerReport) -> str:
    """Return why Sentinels could not promote a replica under its address."""
    if report.mode != "sentinel":
        return ""
    if report.view is None:
        return "no Sentinel says which replicas it knows"
    if address in report.view.listed:
        return ""
    return (
        f"the primary lists {address}, and the Sentinels list"
        f" {describe_servers(report.view.listed) or 'no replica'}: a new one appears there within"
        " ten seconds. If not, make all use the same addresses (`replica-announce-ip`,"
        " `sentinel announce-hostnames`)"
    )


def find_refusal(
    report: ServerReport,
    primary: PrimaryReplicas,
    holders: Holders,
    confirming: frozenset[str],
    minimum: int,
) -> str:
    """Return why no commit may be allowed, "" if commits may."""
    complete = confirming | {primary.address}
    replacement = report.view.find_replacement(primary.address) if report.view else ""
    if refusal := report.refusal or _find_promotable(report, holders, complete) or replacement:
        return refusal
    for address in primary.view.online:
        server = report.servers[address]
        if server.was_reached and server.problem and not server.is_settling:
            return server.problem
    if len(confirming) < minimum:
        reasons = [
            _describe_waiting(server, report)
            for server in report.servers.values()
            if server.address not in confirming
        ]
        return "; ".join([describe_too_few(confirming, minimum), *filter(None, reasons)])
    if lost := holders.raised - confirming - {primary.address}:
        return (
            f"{describe_servers(lost)} may still be promoted by the last failover, and does not"
            " confirm: start it. If it is lost for good, run `busyapi archive accept-primary`"
        )
    return ""


def _describe_waiting(server: ReplicaServer, report: ServerReport) -> str:
    if server.problem:
        return server.problem
    if server.is_settling:
        return f"{server.address} loads data or rewrites its append-only file"
    return _find_unlisted(server.address, report)


def _find_promotable(report: ServerReport, holders: Holders, complete: frozenset[str]) -> str:
    """Return which server that is not complete may be promoted, "" if there is none."""
    if others := report.cluster - complete:
        return (
            f"the cluster may promote {describe_servers(others)}, which cannot confirm: repair it"
            " on every node, or remove it with CLUSTER FORGET on every node"
        )
    if report.mode == "cluster":
        return ""
    for server in report.servers.values():
        if server.address in holders.raised:
            continue
        if server.was_reached and not server.is_unpromotable:
            return describe_promotable(server.address)
        is_unknown = report.mode == "sentinel" and report.view is None
        if is_unknown and not server.was_reached and server.address not in complete:
            return server.problem
    promotable = report.view.promotable if report.view else frozenset()
    if others := promotable - complete - holders.raised:
        return (
            f"the Sentinels may promote {describe_servers(others)}, which does not confirm: set"
            " `replica-priority 0` there. They notice it within ten seconds"
        )
    return ""
