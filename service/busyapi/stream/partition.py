"""A partition as its flusher sees it: find, take the lease, seed, read, publish, release.

Everything that changes the partition carries the lease's token into its script, so that a
flusher which slept through its lease can change nothing. Nothing is taken before `find` has shown
that it may be.
"""

import asyncio
from collections.abc import Awaitable
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from busyapi.errors import ArchiveTaken, LeaseLost, NotSeeded, RedisAway
from busyapi.ids import Seq
from busyapi.stream.durability import Inspector, Server
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import Entry, entry
from busyapi.stream.known import KnownKeys
from busyapi.stream.lease import LEASE_SECONDS, RENEW_SECONDS, STALE_SECONDS, Watch
from busyapi.stream.pace import Pace
from busyapi.stream.scripts import DOUBT, FENCE, LEASE, PUBLISH, READ, RELEASE, SEED
from busyapi.stream.state import State, ask, parse
from busyapi.stream.wire import ServerError, Wire, evalsha

T = TypeVar("T")

LEASE_MS = int(LEASE_SECONDS * 1000)
MOST_ENTRIES = 512
"""Entries of one reply: each costs the server a search."""


class Found(NamedTuple):
    """What a flusher finds when it connects."""

    server: Server
    state: State
    empty: bool
    """Nothing of this partition is in Redis."""


class Partition:
    """One flusher's connection to its partition. One task at a time may use it."""

    def __init__(
        self, endpoint: Endpoint, partition: int, tier: str, archive_id: str, replicas: int = 1
    ) -> None:
        self.keys = endpoint.keys(partition)
        self.standalone = endpoint.mode == "standalone"
        self.installation = endpoint.installation
        self._endpoint = endpoint
        self._inspector = Inspector(tier, self.keys, replicas)
        self._archive_id = archive_id
        self._lease = f"{archive_id}:{token_hex(8)}"
        self._watch = Watch()
        self._renewed = 0.0
        self._pace = Pace()
        self._server = ""
        """Whom the last `find` found."""
        self._wire: Wire | None = None
        self.known = KnownKeys(self.keys, self._lease, self._run)

    async def connect(self) -> None:
        """Open a new connection. Nothing is taken.

        Raises:
            RedisAway: no connection.
        """
        await self.close()
        self._wire = await self._endpoint.connect(self.keys.partition)

    async def holder(self) -> str:
        """Return the id of the archive whose flusher has the lease, "" if none has.

        Raises:
            RedisAway: the connection failed.
        """
        held: bytes | None = await self._run(("GET", self.keys.lease))
        return held.decode(errors="replace").partition(":")[0] if held else ""

    async def take_lease(self) -> bool:
        """Take the lease if it is free or no longer renewed; tell whether it was ours already.

        To be called again, on the same object, until it succeeds: what it saw is remembered.

        Raises:
            RedisAway: the connection failed.
            LeaseLost: another flusher holds it.
        """
        now = monotonic()
        held: bytes | None = await self._run(("GET", self.keys.lease))
        value = held.decode(errors="replace") if held else ""
        if value not in {"", self._lease} and not await self._is_stale(value, now):
            raise LeaseLost
        await self._set_lease(value)
        return value == self._lease

    async def _is_stale(self, value: str, now: float) -> bool:
        try:
            left = await self._open.one("PTTL", self.keys.lease) / 1000
        except ServerError:
            left = -1.0  # an ACL of an earlier install: it is stale when it has expired
            now = 0.0
        mine = value.startswith(f"{self._archive_id}:")
        return self._watch.is_stale(value, left, now, STALE_SECONDS if mine else LEASE_SECONDS)

    async def _set_lease(self, seen: str) -> Seq:
        keys = [self.keys.lease, self.keys.seq]
        issued = await self._run(evalsha(LEASE, keys, self._lease, LEASE_MS, seen))
        self._renewed = monotonic()
        return Seq(issued)

    async def keep_lease(self) -> Seq:
        """Renew the lease and give the last seq issued.

        Raises:
            RedisAway: the connection failed.
            LeaseLost: it has expired, or the partition has another owner.
            ArchiveTaken: another flusher of the same archive has it.
        """
        return await self._set_lease(self._lease)

    async def renew_if_due(self) -> None:
        """Renew the lease if it was not for a while; raises as `keep_lease` does."""
        if monotonic() - self._renewed >= RENEW_SECONDS:
            await self.keep_lease()

    async def while_renewing(self, work: Awaitable[T]) -> T:
        """Wait for work in a thread, renew the lease meanwhile, and give the work's result.

        Raises:
            RedisAway, LeaseLost, ArchiveTaken: as `keep_lease`, and after the work has ended: a
                thread cannot be cancelled.
        """
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=RENEW_SECONDS))[0]:
                await self.keep_lease()
        except BaseException:
            await asyncio.wait({task})
            if not task.cancelled() and (failed := task.exception()):
                raise failed from None
            raise
        return task.result()

    async def release(self) -> None:
        """Give the lease back, if it is ours, and close the connection; never raises."""
        try:
            await self._run(evalsha(RELEASE, [self.keys.lease], self._lease))
        except (RedisAway, LeaseLost, NotSeeded):
            pass  # it expires
        await self.close()

    async def inspect(self) -> Server:
        """Ask who the server is and whether it holds the tier.

        Raises:
            NotSeeded: its replication history is another than `find` found.
            RedisAway: the connection failed.
        """
        server = await self._inspector.inspect(self._open)
        if server.run_id != self._server:
            raise NotSeeded("the server's replication history has changed")
        return server

    async def find(self) -> Found:
        """Read the server's identity and the partition's record.

        Raises:
            RedisAway: the connection failed, or the server is not a primary.
        """
        server = await self._inspector.inspect(self._open)
        self._server = server.run_id
        if server.role != "master":
            raise RedisAway(f"Redis at {self._open.address} is a replica")
        record, seq, streams = await self._open.call(
            *ask(self.keys), ("EXISTS", self.keys.state, self.keys.seq, self.keys.stream)
        )
        for reply in (record, seq, streams):
            if isinstance(reply, ServerError):
                raise RedisAway(f"Redis refuses to be read: {reply.code}")
        return Found(server, parse(record, seq), empty=streams == 0)

    async def unseed(self) -> None:
        """Stop commits: take the epoch away. Only the owner of the lease mints one."""
        await self._run(evalsha(FENCE, [self.keys.state, self.keys.lease], self._lease))

    async def seed(self, archived: Seq, record: dict[str, Any], seq: Seq | None = None) -> None:
        """Write the record, and the counter if `seq` is given.

        Raises:
            LeaseLost: the partition has another owner.
            RedisAway: the answer was lost; to be done again after a new `find`.
        """
        keys = self.keys
        pairs = [each for pair in record.items() for each in pair]
        await self._run(
            evalsha(
                SEED,
                [keys.state, keys.seq, keys.stream, keys.lease],
                self._lease,
                "" if seq is None else seq,
                archived,
                *pairs,
            )
        )

    async def doubt(self, why: str) -> None:
        """Note that a restart of this server must be taken for a loss."""
        await self._run(evalsha(DOUBT, [self.keys.state, self.keys.lease], self._lease, why))

    async def read(self, after: Seq) -> list[Entry]:
        """Read the next entries whose last seq is above `after`, as many as one reply may have.

        A large entry comes alone, in parts.

        Raises:
            RedisAway: the connection failed; the next reply will be smaller.
            LeaseLost, ArchiveTaken: as `keep_lease`.
        """
        reply = await self._read(after, 0)
        if not reply or reply[0][3] == len(reply[0][4]):
            return [_entry(*each) for each in reply]
        entry_id, fields, name, length, part = reply[0]
        value = bytearray(part)
        while len(value) < length:
            await self.renew_if_due()
            again = await self._read(after, len(value))
            if not again or [entry_id, fields, name, length] != again[0][:4] or not again[0][4]:
                await self.close()
                raise RedisAway("an entry of the stream changed while it was read")
            value += again[0][4]
        return [_entry(entry_id, fields, name, length, value)]

    async def _read(self, after: Seq, offset: int) -> list[list[Any]]:
        most, began = self._pace.bytes, monotonic()
        command = evalsha(READ, [self.keys.stream], after, offset, most, MOST_ENTRIES)
        try:
            reply: list[list[Any]] = await self._run(command, large=True)
        except RedisAway:
            self._pace.record_failure()
            raise
        self._pace.record(sum(len(each[4]) for each in reply), monotonic() - began)
        return reply

    async def publish(self, archived: Seq) -> Seq:
        """Say how far the archive is, and trim; renews the lease; gives the last seq issued.

        Raises:
            LeaseLost, ArchiveTaken: as `keep_lease`.
            NotSeeded: a lane found that this server went back: seed it again.
        """
        keys = self.keys
        names = [keys.state, keys.stream, keys.lease, keys.seq]
        issued = await self._run(evalsha(PUBLISH, names, self._lease, archived, LEASE_MS))
        self._renewed = monotonic()
        return Seq(issued)

    async def close(self) -> None:
        """Close the connection."""
        if self._wire:
            await self._wire.close()

    @property
    def _open(self) -> Wire:
        if self._wire is None:
            raise RedisAway("not connected")
        return self._wire

    async def _run(self, command: Any, *, large: bool = False) -> Any:
        try:
            return await self._open.one(*command, large=large)
        except ServerError as error:
            if error.code == "LEASE":
                raise self._lost(str(error)) from None
            if error.code == "EPOCH":
                raise NotSeeded from None
            await self.close()
            raise RedisAway(f"Redis refused a command: {error}") from None

    def _lost(self, refusal: str) -> LeaseLost | ArchiveTaken:
        """Tell who has the lease now: another token of our archive means that its lock is void."""
        if refusal.startswith(f"LEASE {self._archive_id}:"):
            return ArchiveTaken("another flusher of this archive has taken its lease")
        return LeaseLost()


def _entry(
    entry_id: bytes, fields: int, name: bytes, length: int, value: bytes | bytearray
) -> Entry:
    del length
    # More fields than ours are not read: they only show that another version wrote the entry.
    return entry(entry_id, [name, value][:fields] + [b""] * (fields - 2))
