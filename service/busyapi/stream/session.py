"""A lane's checked connection, and the commit call on it.

A commit is allowed only on a connection for which one check was made: the server's own run_id
equals the one in the partition's record, and the counter is not below what this process has
been given. The epoch alone would not do: a promoted replica carries it in its copied data, and
could hand out again the ids of the tail that it never got. A connection belongs to one server
process, and that process may take over another's data without closing it. So the commit script
compares the replication id with the record's in the same step, and refuses to go below what this
process has been given.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.errors import NotSeeded, PartitionMismatch, RedisAway, TooWeak
from busyapi.ids import Seq
from busyapi.stream.durability import Inspector
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import Keys
from busyapi.stream.scripts import COMMIT, KEYED, REMEMBER, UNSEED
from busyapi.stream.state import ask, parse
from busyapi.stream.wire import Command, ServerError, Wire, evalsha

LANE_MEMORY_SECONDS = 3600
"""How long a silent lane's last batch number is kept. It only cleans up behind lanes that ended:
the script refuses a lane whose number is gone, so no guarantee depends on the server's clock."""

WAIT_MS = 2000
"""How long a replica may take to confirm before the batch is sent again."""


class Call(NamedTuple):
    """One script call: the usages of one stream entry."""

    value: bytes
    usages: int
    guard: str
    mode: str
    """`batch` (guarded by the lane's batch number) or `key` (by an Idempotency-Key)."""
    token: str
    key: str = ""
    """Digest of the Idempotency-Key in its scope; `guard` is the key as 0.2.0 named it."""
    sign: str = ""
    """Names the request, so that the lane's own repeat of it is no replay."""
    received_ms: int = 0


class Session:
    """One lane's connection, after its check."""

    def __init__(self, wire: Wire, keys: Keys, inspector: Inspector, installation: str) -> None:
        self._wire = wire
        self._keys = keys
        self._inspector = inspector
        self._replicas = inspector.replicas
        self._installation = installation
        self.epoch = ""

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        partition: int,
        partitions: int,
        inspector: Inspector,
        highest: Seq,
    ) -> "Session":
        """Connect and check. `highest` is the largest seq this process was ever given.

        Raises:
            RedisAway: no connection.
            NotSeeded: the flusher has not vouched for this server; a later try may succeed.
            PartitionMismatch: this installation has another number of partitions.
            TooWeak: Redis does not hold the tier.
        """
        wire = await endpoint.connect(partition)
        session = cls(wire, endpoint.keys(partition), inspector, endpoint.installation)
        try:
            await session._check(partitions, highest)
        except BaseException:
            await wire.close()
            raise
        return session

    async def _check(self, partitions: int, highest: Seq) -> None:
        server = await self._inspector.inspect(self._wire)
        if server.weak:
            raise TooWeak(server.weak)
        record, seq = await self._wire.call(*ask(self._keys))
        if isinstance(record, ServerError) or isinstance(seq, ServerError):
            raise RedisAway(f"Redis at {self._wire.address} refuses to be read: {record}")
        state = parse(record, seq)
        if state.partitions not in {None, partitions}:
            raise PartitionMismatch(
                f"this installation has {state.partitions} partitions,"
                f" BUSYAPI_PARTITIONS says {partitions}: the number is fixed at install"
            )
        if state.installation not in {"", self._installation}:
            raise NotSeeded(
                f"partition {self._keys.partition} belongs to installation"
                f" {state.installation!r}, BUSYAPI_INSTALLATION says {self._installation!r}: two"
                " installations on one Redis need different BUSYAPI_KEY_PREFIX"
            )
        if not state.epoch or state.seq is None:
            raise NotSeeded(f"partition {self._keys.partition} is not seeded yet")
        if state.seq < highest:
            # This server is older than what we were told. Its epoch must go, or a process
            # that knows less would commit on it.
            await self._wire.call(evalsha(UNSEED, [self._keys.state], state.epoch))
            raise NotSeeded(f"partition {self._keys.partition} went back: waiting for the flusher")
        if server.role != "master" or state.run_id != server.run_id:
            raise NotSeeded(f"partition {self._keys.partition} is not seeded for this server")
        self.epoch = state.epoch

    async def recheck(self, partitions: int, highest: Seq) -> None:
        """Check again on the same connection; raises as `open` does."""
        epoch = self.epoch
        await self._check(partitions, highest)
        if self.epoch != epoch:
            raise NotSeeded("the epoch changed")

    async def remembers(self, guard: str) -> bool:
        """Return whether the server still knows a lane's last batch.

        Raises:
            RedisAway: the connection failed, or the server refuses.
        """
        (known,) = await self._wire.call(("GET", guard))
        if isinstance(known, ServerError):
            await self.close()
            raise RedisAway(f"Redis at {self._wire.address} refuses to be read: {known}")
        return known is not None

    async def enroll(self, guard: str) -> None:
        """Make the server remember a lane, before its first batch.

        Raises:
            RedisAway: the connection failed, or the server cannot write.
        """
        (reply,) = await self._wire.call(evalsha(REMEMBER, [guard], "0 0", LANE_MEMORY_SECONDS))
        if isinstance(reply, ServerError):
            await self.close()
            raise RedisAway(f"Redis refuses commits: {reply.code}")

    def command(self, call: Call, highest: Seq) -> Command:
        """Make the commit command of one call."""
        keys = self._keys
        if call.mode == "key":
            return self._keyed(call, highest)
        return evalsha(
            COMMIT,
            [keys.state, keys.seq, keys.stream, call.guard],
            self.epoch,
            highest,
            self._replicas or "",
            call.token,
            call.usages,
            LANE_MEMORY_SECONDS,
            call.value,
        )

    def _keyed(self, call: Call, highest: Seq) -> Command:
        keys = self._keys
        return evalsha(
            KEYED,
            [keys.state, keys.seq, keys.stream, keys.keyed, call.guard, *keys.hashes],
            self.epoch,
            highest,
            self._replicas or "",
            call.key,
            call.token,
            call.sign,
            call.usages,
            call.value,
            call.received_ms,
        )

    def send(self, calls: list[Call], highest: Seq) -> asyncio.Future[list[Any]]:
        """Send calls in one go, now; `replies` must be awaited.

        A server whose counter is below `highest` refuses them.

        Raises:
            RedisAway: there is no connection; nothing was sent.
        """
        commands = [self.command(each, highest) for each in calls]
        if self._replicas:
            commands.append(("WAIT", self._replicas, WAIT_MS))
        return self._wire.send(commands)

    async def replies(self, sent: asyncio.Future[list[Any]]) -> list[Any]:
        """Give for each call a last seq (negative for a repeat) or ServerError.

        Raises:
            RedisAway: the answer was lost, or too few replicas confirmed: each may be stored.
        """
        replies = await self._wire.answers(sent)
        if self._replicas:
            confirmed = replies.pop()
            if isinstance(confirmed, ServerError) or confirmed < self._replicas:
                raise RedisAway("too few replicas confirmed the batch")
        return replies

    async def give_up_epoch(self) -> None:
        """Unseed: the stream is ahead of the counter, so this server lost writes."""
        try:
            await self._wire.call(evalsha(UNSEED, [self._keys.state], self.epoch))
        except RedisAway:
            pass  # the next commit finds the same

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()
