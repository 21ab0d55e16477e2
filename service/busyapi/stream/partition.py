"""A partition as its flusher sees it: lease, seed, read, publish.

Everything that changes the partition carries the lease's token into its script, so that a
flusher which slept through its lease can change nothing.
"""

from secrets import token_hex
from typing import Any, NamedTuple

from busyapi.errors import LeaseLost, NotSeeded, RedisAway
from busyapi.ids import Seq
from busyapi.stream.durability import Inspector, Server
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import Entry, entry
from busyapi.stream.scripts import DOUBT, FENCE, LEASE, PUBLISH, SEED
from busyapi.stream.state import State, ask, parse
from busyapi.stream.wire import ANSWER_SECONDS, ServerError, Wire, evalsha

LEASE_MS = 10_000
"""A flusher that is silent for longer may be replaced. It renews at least once a second."""


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
        self._endpoint = endpoint
        self._inspector = Inspector(tier, self.keys, replicas)
        self._archive_id = archive_id
        self._token = token_hex(8)
        self._server = ""
        """Whom the last `find` found."""
        self._wire: Wire | None = None

    @property
    def _lease(self) -> str:
        return f"{self._archive_id}:{self._token}"

    async def connect(self) -> None:
        """Open a new connection and take the lease.

        Raises:
            RedisAway: no connection.
            LeaseLost: another archive's flusher holds it.
        """
        await self.close()
        self._wire = await self._endpoint.connect(self.keys.partition)
        await self.keep_lease()

    async def keep_lease(self) -> Seq:
        """Renew the lease and give the last seq issued; raises as `connect` does."""
        keys = [self.keys.lease, self.keys.seq]
        return Seq(await self._run(evalsha(LEASE, keys, self._archive_id, self._token, LEASE_MS)))

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

    async def read(self, after: Seq, count: int, block_ms: int) -> list[Entry]:
        """Read up to `count` entries whose last seq is above `after`.

        Waits `block_ms` for the first one, not at all for 0.
        """
        block = ("BLOCK", block_ms) if block_ms else ()
        # The largest sequence part: every entry that ends at `after` is behind it.
        start = f"{after}-18446744073709551615"
        reply = await self._run(
            ("XREAD", "COUNT", count, *block, "STREAMS", self.keys.stream, start),
            seconds=ANSWER_SECONDS + block_ms / 1000,
        )
        return [entry(*each) for each in reply[0][1]] if reply else []

    async def publish(self, archived: Seq) -> Seq:
        """Say how far the archive is, and trim; renews the lease; gives the last seq issued.

        Raises:
            LeaseLost: the partition has another owner.
            NotSeeded: a lane found that this server went back: seed it again.
        """
        keys = self.keys
        names = [keys.state, keys.stream, keys.lease, keys.seq]
        return Seq(await self._run(evalsha(PUBLISH, names, self._lease, archived, LEASE_MS)))

    async def close(self) -> None:
        """Close the connection."""
        if self._wire:
            await self._wire.close()

    @property
    def _open(self) -> Wire:
        if self._wire is None:
            raise RedisAway("not connected")
        return self._wire

    async def _run(self, command: Any, seconds: float = ANSWER_SECONDS) -> Any:
        try:
            return await self._open.one(*command, seconds=seconds)
        except ServerError as error:
            if error.code == "LEASE":
                raise LeaseLost from None
            if error.code == "EPOCH":
                raise NotSeeded from None
            await self.close()
            raise RedisAway(f"Redis refused a command: {error}") from None
