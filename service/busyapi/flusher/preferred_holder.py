"""Lets the Sentinels prefer a holder to a former primary that they lost.

Sentinels assume priority 100 for a former primary until they have made it a replica. If it was cut
off and is reached again, they could promote it after the loss of the present primary, and the other
servers would copy its data. They promote the server with the lowest priority that is not 0. So
until a former primary confirms commits again, or the Sentinels know that its priority is 0, one
holder has priority 1.

That holder must confirm every commit until its priority is 0 again. So it is chosen only while
commits would be refused without it anyway: with as few replicas as BUSYAPI_MIN_REPLICAS allows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from busyapi.archive.holders import Holders
from busyapi.errors import RedisUnavailable
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.replica_servers import ServerReport
from busyapi.flusher.retry import LastingProblem
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import (
    INSPECT_TIMEOUT_SECONDS,
    ReplicaServer,
    raise_priority,
)
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.sentinel import read_primary

log = structlog.get_logger()

MIN_NEEDED_SECONDS = 4.0
"""Longer than the restart of a container takes. Sentinels read a priority at the failover and then
every ten seconds, so they would not notice one that is raised sooner before that either."""


class PreferredHolder:
    """The holder that the Sentinels prefer, if any."""

    def __init__(
        self,
        endpoint: Endpoint,
        record: HolderRecord,
        record_choice: Callable[[str, float], Awaitable[None]],
        minimum: int,
    ) -> None:
        self._endpoint, self._record, self._minimum = endpoint, record, minimum
        self._record_choice = record_choice
        self._address = ""
        self._former: frozenset[str] = frozenset()
        """The primaries that were replaced and have not confirmed a commit since then."""
        self._needed = LastingProblem(MIN_NEEDED_SECONDS)

    def note_primary(self, primary: PrimaryReplicas, holders: Holders) -> None:
        """Note that a primary will be used. Its data name the one before, if there was another."""
        if primary.record and primary.record.server_id != primary.server_id:
            before = primary.record.server_id.partition("-")[0]
            processes = holders.processes.items()
            self._former |= {address for address, run_id in processes if run_id == before}
        self._former -= {primary.address}
        if self._address in {"", primary.address}:
            # After a restart of the flusher: the one on record.
            self._address = min(holders.raised - {primary.address}, default="")

    def choose(
        self, primary: str, report: ServerReport, holders: Holders, confirming: frozenset[str]
    ) -> str:
        """Return the address of the holder that the Sentinels must prefer, "" if none is needed."""
        self._former -= confirming
        if report.view is None or not confirming:
            return self._address  # more is known at the next decision
        assumed = report.view.assumed - confirming - {primary}
        if not assumed or len(confirming) > self._minimum:
            self._address = ""
            self._needed.end()
        elif self._address not in confirming:
            needed = self._needed.has_lasted(", ".join(assumed & self._former))
            able = [it for it in confirming if _is_holder(report.servers[it], holders)]
            self._address = min(able, default="") if needed else ""
        return self._address

    async def raise_chosen(
        self, partition: OwnedPartition, report: ServerReport, confirming: frozenset[str]
    ) -> None:
        """Raise the priority of the chosen holder, unless that is done.

        A process that has restarted may have lost its volume: it is not raised before it is on
        record as a holder again.

        Raises:
            RedisUnavailable, LeaseLost, ArchiveTakenOver: as `await_with_lease`.
            ArchiveDamaged, ArchiveFull, FsyncFailed: the record cannot be read or written.
        """
        address = self._address
        server = report.servers.get(address)
        if server is None or not server.is_unpromotable or address not in confirming:
            return
        holders = await self._record.read()
        named = await partition.await_with_lease(read_primary(self._endpoint))
        if named is None or not _is_holder(server, holders):
            return
        await self._record_choice(address, named.failover_timeout_seconds)
        if address not in holders.raised:
            log.warning("holder_preferred", chosen=address)
        await partition.await_with_lease(self._raise(address))

    async def _raise(self, address: str) -> None:
        # If this fails, the next inspection finds the priority 0, and it is tried again.
        with suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(INSPECT_TIMEOUT_SECONDS):
                await raise_priority(self._endpoint, address)


def _is_holder(server: ReplicaServer, holders: Holders) -> bool:
    """Return whether a server is the process that is on record as a holder."""
    return server.was_reached and holders.processes.get(server.address) == server.data.run_id
