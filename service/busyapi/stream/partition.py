"""A partition from its flusher's side: read, acquire the lease, seed, publish, release.

Every script that changes the partition checks the lease's token, so that a flusher whose lease
expired while it slept can change nothing. A flusher reads a snapshot before it acquires the lease.
"""

import asyncio
from collections.abc import Awaitable
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar

from busyapi.errors import ArchiveTakenOver, LeaseLost, NotSeeded, RedisUnavailable
from busyapi.ids import Seq
from busyapi.stream.connection import RedisConnection, ServerError, make_evalsha
from busyapi.stream.durability import DurabilityInspector, ServerInfo
from busyapi.stream.entry import Entry, parse_read_entry
from busyapi.stream.idempotency import IdempotencyStore
from busyapi.stream.lease import (
    LEASE_TTL_SECONDS,
    RENEW_INTERVAL_SECONDS,
    STALE_SECONDS,
    LeaseObserver,
)
from busyapi.stream.read_size import MAX_ENTRIES, ReadSizeLimit
from busyapi.stream.replica_store import ReplicaStore
from busyapi.stream.scripts import (
    PUBLISH,
    READ_ENTRIES,
    RECORD_DOUBT,
    RELEASE_LEASE,
    REVOKE_EPOCH,
    SEED,
    SET_LEASE,
)
from busyapi.stream.servers import RedisServers
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import parse_state, state_commands

T = TypeVar("T")

LEASE_TTL_MS = int(LEASE_TTL_SECONDS * 1000)


class OwnedPartition:
    """One flusher's connection to its partition. One task at a time may use it."""

    def __init__(self, servers: RedisServers, partition: int, tier: str, archive_id: str) -> None:
        self.servers = servers
        endpoint = self.endpoint = servers.find(partition)
        self.key_names = endpoint.key_names(partition)
        self.is_standalone = endpoint.mode == "standalone"
        self.installation = endpoint.installation
        self._inspector = DurabilityInspector(tier, self.key_names, 0, endpoint.trust)
        self._archive_id = archive_id
        self._lease = f"{archive_id}:{token_hex(8)}"
        self._lease_observer = LeaseObserver()
        self._renewed_at = 0.0
        self._read_size = ReadSizeLimit()
        self.reached_end = False
        """Whether the last `read` returned the newest entry."""
        self.handover = ""
        """The primary that asks to be replaced, as of the last `read`, "" if none does."""
        self._server_id = ""  # of the last `read_snapshot`
        self._connection: RedisConnection | None = None
        names, lease = self.key_names, self._lease
        self.replicas = ReplicaStore(endpoint, names, lease, lambda: self._open_connection)
        self.idempotency = IdempotencyStore(names, lease, self._run)

    async def connect(self) -> None:
        """Open a new connection, without acquiring the lease.

        Raises:
            RedisUnavailable: there is no connection.
        """
        await self.close()
        self._connection = await self.endpoint.connect(self.key_names.partition, self._archive_id)

    async def lease_holder(self) -> str:
        """Return the id of the archive whose flusher holds the lease, "" if the lease is free.

        Raises:
            RedisUnavailable: the connection failed.
        """
        holder: bytes | None = await self._run(("GET", self.key_names.lease))
        return holder.decode(errors="replace").partition(":")[0] if holder else ""

    async def acquire_lease(self) -> bool:
        """Acquire the lease if it is free or stale; return whether this object held it already.

        Call it again on the same object until it succeeds: the object keeps what it has observed.

        Raises:
            RedisUnavailable: the connection failed.
            LeaseLost: another flusher holds it.
        """
        now = monotonic()
        holder: bytes | None = await self._run(("GET", self.key_names.lease))
        value = holder.decode(errors="replace") if holder else ""
        if value not in {"", self._lease} and not await self._is_stale(value, now):
            raise LeaseLost
        await self._set_lease(value)
        return value == self._lease

    async def _is_stale(self, value: str, now: float) -> bool:
        try:
            ttl_seconds = await self._open_connection.execute("PTTL", self.key_names.lease) / 1000
        except ServerError:
            ttl_seconds = -1.0  # the ACL of an earlier install: the lease is stale once it expires
            now = 0.0
        is_own_archive = value.startswith(f"{self._archive_id}:")
        return self._lease_observer.is_stale(
            value, ttl_seconds, now, STALE_SECONDS if is_own_archive else LEASE_TTL_SECONDS
        )

    async def _set_lease(self, current: str) -> Seq:
        keys = [self.key_names.lease, self.key_names.seq]
        issued = await self._run(make_evalsha(SET_LEASE, keys, self._lease, LEASE_TTL_MS, current))
        self._renewed_at = monotonic()
        return Seq(issued)

    async def renew_lease(self) -> Seq:
        """Renew the lease, and return the last issued seq.

        Raises:
            RedisUnavailable: the connection failed.
            LeaseLost: the lease has expired, or the partition has another owner.
            ArchiveTakenOver: another flusher of the same archive holds it.
        """
        return await self._set_lease(self._lease)

    async def renew_lease_if_due(self) -> None:
        """Renew the lease if the renewal interval has passed; raises as `renew_lease` does."""
        if monotonic() - self._renewed_at >= RENEW_INTERVAL_SECONDS:
            await self.renew_lease()

    async def await_with_lease(self, work: Awaitable[T]) -> T:
        """Wait for work in a thread, renew the lease meanwhile, and return the work's result.

        Raises:
            RedisUnavailable, LeaseLost, ArchiveTakenOver: as `renew_lease`, but only after the work
                has ended, because a thread cannot be cancelled.
        """
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=RENEW_INTERVAL_SECONDS))[0]:
                await self.renew_lease()
        except BaseException:
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()):
                raise error from None
            raise
        return task.result()

    async def release(self) -> None:
        """Release the lease if this object holds it, and close the connection; never raises."""
        try:
            await self._run(make_evalsha(RELEASE_LEASE, [self.key_names.lease], self._lease))
        except (RedisUnavailable, LeaseLost, NotSeeded):
            pass  # it expires
        await self.close()

    async def inspect(self) -> ServerInfo:
        """Return the server's identity, and whether it meets the tier.

        Raises:
            NotSeeded: its replication history has changed since `read_snapshot`.
            RedisUnavailable: the connection failed.
        """
        connection = self._open_connection
        await self.endpoint.recheck(connection, self.key_names.partition, self._archive_id)
        server = await self._inspector.inspect(connection)
        if server.server_id != self._server_id:
            raise NotSeeded("the server's replication history has changed")
        return server

    async def read_snapshot(self) -> PartitionSnapshot:
        """Return the server's identity and the partition's record.

        Raises:
            RedisUnavailable: the connection failed, or the server is not a primary.
        """
        server = await self._inspector.inspect(self._open_connection)
        self._server_id = server.server_id
        if server.role != "master":
            raise RedisUnavailable(f"Redis at {self._open_connection.address} is a replica")
        names = self.key_names
        record, seq, streams = await self._open_connection.pipeline(
            *state_commands(names), ("EXISTS", names.state, names.seq, names.stream)
        )
        for reply in (record, seq, streams):
            if isinstance(reply, ServerError):
                raise RedisUnavailable(f"Redis refuses reads: {reply.code}")
        return PartitionSnapshot(server, parse_state(record, seq), is_empty=streams == 0)

    async def revoke_epoch(self, *, pause: bool = False) -> str:
        """Revoke the epoch: no commit succeeds until the owner mints one. Return a paused one."""
        names = [self.key_names.state, self.key_names.lease]
        reply = await self._run(make_evalsha(REVOKE_EPOCH, names, self._lease, int(pause)))
        return str(reply, "ascii")

    async def seed(self, archived: Seq, record: dict[str, Any], seq: Seq | None = None) -> None:
        """Write the record, and the counter if `seq` is given.

        Raises:
            LeaseLost: the partition has another owner.
            RedisUnavailable: the reply was lost; seed again after a new `read_snapshot`.
        """
        names = self.key_names
        keys = [names.state, names.seq, names.stream, names.lease]
        pairs = [text for pair in record.items() for text in pair]
        counter = "" if seq is None else seq
        await self._run(make_evalsha(SEED, keys, self._lease, counter, archived, *pairs))

    async def record_doubt(self, reason: str) -> None:
        """Record that a restart of this server must count as a loss."""
        names = [self.key_names.state, self.key_names.lease]
        await self._run(make_evalsha(RECORD_DOUBT, names, self._lease, reason))

    async def read(self, after: Seq) -> list[Entry]:
        """Return the next entries whose last seq is above `after`, as many as one reply may have.

        An entry larger than one reply is read in parts, and returned alone.

        Raises:
            RedisUnavailable: the connection failed; the next reply is smaller.
            LeaseLost, ArchiveTakenOver: as `renew_lease`.
        """
        reply = await self._read(after, 0)
        if not reply or reply[0][3] == len(reply[0][4]):
            return [parse_read_entry(*item) for item in reply]
        entry_id, fields, name, length, part = reply[0]
        value = bytearray(part)
        while len(value) < length:
            await self.renew_lease_if_due()
            reply = await self._read(after, len(value))
            if not reply or [entry_id, fields, name, length] != reply[0][:4] or not reply[0][4]:
                await self.close()
                raise RedisUnavailable("an entry of the stream changed while it was read")
            value += reply[0][4]
        self.reached_end = False  # the reply may have had more entries
        return [parse_read_entry(entry_id, fields, name, length, value)]

    async def _read(self, after: Seq, offset: int) -> list[list[Any]]:
        limit, started = self._read_size.max_bytes, monotonic()
        arguments = after, offset, limit, MAX_ENTRIES
        keys = [self.key_names.stream]
        if self.replicas.may_hand_over:
            keys.append(self.key_names.handover)
        command = make_evalsha(READ_ENTRIES, keys, *arguments)
        try:
            reply: tuple[int, list[list[Any]], bytes] = await self._run(command, large=True)
        except RedisUnavailable:
            self._read_size.record_failure()
            raise
        self.reached_end, entries = bool(reply[0]), reply[1]
        self.handover = reply[2].decode(errors="replace")
        self._read_size.record(sum(len(item[4]) for item in entries), monotonic() - started)
        return entries

    async def publish(self, archived: Seq) -> Seq:
        """Publish the archive's cursor, trim, and renew the lease; return the last issued seq.

        Raises:
            LeaseLost, ArchiveTakenOver: as `renew_lease`.
            NotSeeded: a committer found that this server went back; seed it again.
        """
        names = self.key_names
        keys = [names.state, names.stream, names.lease, names.seq]
        issued = await self._run(make_evalsha(PUBLISH, keys, self._lease, archived, LEASE_TTL_MS))
        self._renewed_at = monotonic()
        return Seq(issued)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection:
            await self._connection.close()

    @property
    def _open_connection(self) -> RedisConnection:
        if self._connection is None:
            raise RedisUnavailable("not connected")
        return self._connection

    async def _run(self, command: Any, *, large: bool = False) -> Any:
        try:
            return await self._open_connection.execute(*command, large=large)
        except ServerError as error:
            if error.code == "LEASE":
                raise self._lease_error(str(error)) from None
            if error.code == "EPOCH":
                raise NotSeeded from None
            await self.close()
            raise RedisUnavailable(f"Redis refused a command: {error}") from None

    def _lease_error(self, refusal: str) -> LeaseLost | ArchiveTakenOver:
        """Return the error for a lost lease; a holder of this archive voids the archive's lock."""
        if refusal.startswith(f"LEASE {self._archive_id}:"):
            return ArchiveTakenOver("another flusher of this archive has taken its lease")
        return LeaseLost()
