"""A committer's checked connection, and the commit call on it.

A commit is allowed only on a connection that was checked: the server's own id equals the one
in the partition's record, and the counter is not below the highest seq that this process received.
The epoch alone does not suffice: a promoted replica has it in its copied data, and could issue
again the ids of the newest writes, which it lacks. A connection belongs to one server process, and
that process may take over another one's data without closing the connection. So the commit script
compares the replication id with the record's in the same step, and refuses a counter below the
highest seq that this process received.
"""

import asyncio
from functools import partial
from typing import Any, NamedTuple

from busyapi.errors import (
    DurabilityNotMet,
    NotSeeded,
    PartitionPaused,
    RedisUnavailable,
)
from busyapi.ids import Seq
from busyapi.stream.connection import Command, RedisConnection, ServerError, make_evalsha
from busyapi.stream.durability import DurabilityInspector, ServerInfo
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.overdue import is_view_outdated
from busyapi.stream.record_check import check_record
from busyapi.stream.replicas import ReplicaView, find_unconfirmed, make_confirm_commands
from busyapi.stream.scripts import COMMIT, COMMIT_KEYED, REVOKE_SEEN_EPOCH, SET_EXPIRING
from busyapi.stream.state import PartitionState, parse_state, state_commands
from busyapi.stream.successor import replace_successors
from busyapi.strides import Strides

COMMITTER_MEMORY_SECONDS = 3600
"""How long Redis keeps the last batch number of an idle committer. The expiry only cleans up after
committers that ended: the script refuses a committer whose number has expired, so no guarantee
depends on the server's clock."""

REPLICA_WAIT_MS = 2000
"""How long replicas may take to receive a batch, and again to sync it, before the committer sends
it again. Twice this time is below the reply timeout of a connection."""


class CommitCommand(NamedTuple):
    """The arguments of one commit script call, which stores one stream entry."""

    entry: bytes
    usage_count: int
    dedup_key: str
    """The Redis key that recognizes a retry. Mode `batch`: the committer's, which holds its last
    batch number. Mode `key`: the Idempotency-Key's, under the name that version 0.2.0 gave it."""
    mode: str
    """`batch` (deduplicated by the committer's batch number) or `key` (by an Idempotency-Key)."""
    dedup_token: str
    """The same in a retry: the batch number, or in mode `key` the digest of the body."""
    key_digest: str = ""
    """Digest of the Idempotency-Key and its owner, a field of the hashes of known keys."""
    request_token: str = ""
    """Identifies the request, so that a retry by the committer does not count as a replay."""
    received_ms: int = 0


class CommitResult(NamedTuple):
    """A commit command's success."""

    last: int
    """The seq of the last of its usages."""
    replayed: bool
    """An earlier command stored the usages: this one retried it and stored nothing."""


class Session:
    """A committer's checked connection."""

    def __init__(
        self,
        connection: RedisConnection,
        endpoint: Endpoint,
        partition: int,
        inspector: DurabilityInspector,
    ) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._key_names = endpoint.key_names(partition)
        self._inspector = inspector
        self._view: ReplicaView | None = None
        """The replicas as they were checked; None if commits do not wait for replicas."""
        self._can_confirm_aof = False
        self.confirm_seconds: float | None = None
        """How long the last batch, which the primary had stored, waited for its replicas; None if
        commits do not wait for replicas."""
        self.epoch = self.server_id = ""
        self.strides = Strides.fixed(1)

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        partition: int,
        partitions: int,
        inspector: DurabilityInspector,
        highest: Seq,
    ) -> "Session":
        """Connect and check. `highest` is the highest seq that this process ever received.

        Raises:
            RedisUnavailable: there is no connection.
            NotSeeded: no flusher has seeded the partition on this server; a later try may succeed.
            PartitionMismatch: the installation cannot have so few partitions.
            DurabilityNotMet: Redis does not meet the tier.
        """
        connection = await endpoint.connect(partition)
        session = cls(connection, endpoint, partition, inspector)
        try:
            await session._check(partitions, highest)
        except BaseException:
            await connection.close()
            raise
        return session

    async def _check(self, partitions: int, highest: Seq) -> None:
        server = await self._inspector.inspect(self._connection)
        if server.durability_error:
            raise DurabilityNotMet(server.durability_error)
        record, seq = await self._connection.pipeline(*state_commands(self._key_names))
        if isinstance(record, ServerError) or isinstance(seq, ServerError):
            raise RedisUnavailable(f"Redis at {self._connection.address} refuses reads: {record}")
        state = parse_state(record, seq)
        check_record(state, self._endpoint, self._key_names.partition, partitions)
        epoch = state.epoch or state.paused
        if not epoch or state.seq is None or state.strides is None:
            raise NotSeeded(f"partition {self._key_names.partition} is not seeded yet")
        if state.seq < highest:
            # The server has lost seqs that this process received. The epoch must be revoked, or a
            # process that received fewer would commit here.
            await self._connection.pipeline(
                make_evalsha(REVOKE_SEEN_EPOCH, [self._key_names.state], epoch)
            )
            raise NotSeeded(
                f"partition {self._key_names.partition} went back: waiting for the flusher"
            )
        if not state.epoch:
            raise PartitionPaused(f"partition {self._key_names.partition} gets another stride")
        if server.role != "master" or not is_seeded_for(state, server):
            raise NotSeeded(f"partition {self._key_names.partition} is not seeded for this server")
        self.epoch, self.server_id = state.epoch, state.server_id
        self.strides = state.strides
        self._view, self._can_confirm_aof = server.view, server.can_confirm_aof
        if server.view:
            replace_successors(self._endpoint.successors, server.view.listed)
            self._connection.is_replaced = partial(
                is_view_outdated, self._endpoint, self._connection.address, server.view
            )

    async def recheck(self, partitions: int, highest: Seq) -> None:
        """Check again on the same connection; raises as `open` does."""
        await self._endpoint.recheck(self._connection, self._key_names.partition)
        epoch = self.epoch
        await self._check(partitions, highest)
        if self.epoch != epoch:
            raise NotSeeded("the epoch changed")

    async def is_registered(self, dedup_key: str) -> bool:
        """Return whether the server still has a committer's last batch.

        Raises:
            RedisUnavailable: the connection failed, or the server refuses the read.
        """
        (batch,) = await self._connection.pipeline(("GET", dedup_key))
        if isinstance(batch, ServerError):
            await self.close()
            raise RedisUnavailable(f"Redis at {self._connection.address} refuses reads: {batch}")
        return batch is not None

    async def register(self, dedup_key: str) -> None:
        """Write a committer's last batch to the server, before its first commit.

        Raises:
            RedisUnavailable: the connection failed, or the server cannot write.
        """
        (reply,) = await self._connection.pipeline(
            make_evalsha(SET_EXPIRING, [dedup_key], "0 0", COMMITTER_MEMORY_SECONDS)
        )
        if isinstance(reply, ServerError):
            await self.close()
            raise RedisUnavailable(f"Redis refuses commits: {reply.code}")

    def make_command(self, command: CommitCommand, highest: Seq) -> Command:
        """Return the Redis command that runs the commit script."""
        key_names = self._key_names
        if command.mode == "key":
            return self._make_keyed_command(command, highest)
        return make_evalsha(
            COMMIT,
            [key_names.state, key_names.seq, key_names.stream, command.dedup_key],
            self.epoch,
            highest,
            "" if self._view is None else 1,
            command.dedup_token,
            command.usage_count,
            COMMITTER_MEMORY_SECONDS,
            command.entry,
        )

    def _make_keyed_command(self, command: CommitCommand, highest: Seq) -> Command:
        key_names = self._key_names
        return make_evalsha(
            COMMIT_KEYED,
            [
                key_names.state,
                key_names.seq,
                key_names.stream,
                key_names.new_idempotency_keys,
                command.dedup_key,
                *key_names.idempotency_hashes,
            ],
            self.epoch,
            highest,
            "" if self._view is None else 1,
            command.key_digest,
            command.dedup_token,
            command.request_token,
            command.usage_count,
            command.entry,
            command.received_ms,
        )

    def send(self, commands: list[CommitCommand], highest: Seq) -> asyncio.Future[list[Any]]:
        """Send commit commands in one packet, now; the caller must await `wait_replies`.

        A server whose counter is below `highest` refuses them.

        Raises:
            RedisUnavailable: the connection is closed; nothing was sent.
        """
        packet = [self.make_command(command, highest) for command in commands]
        packet += self._confirm_commands()
        return self._connection.send(packet)

    def _confirm_commands(self) -> list[Command]:
        """Return the commands that wait for every online replica, and then list the replicas.

        WAITAOF alone would take a second: a replica answers with what it had synced before it
        received the batch. WAIT makes it sync and answer, and WAITAOF behind it asks again.
        """
        if self._view is None:
            return []
        return make_confirm_commands(self._view, REPLICA_WAIT_MS, aof=self._can_confirm_aof)

    async def wait_replies(self, sent: asyncio.Future[list[Any]]) -> list[object]:
        """Return a `CommitResult` or a `ServerError` for each command, in order.

        Raises:
            RedisUnavailable: the replies were lost, or too few replicas confirmed: each command
                may be stored.
        """
        replies = await self._connection.wait_replies(sent)
        if self._view is not None:
            now = asyncio.get_running_loop().time()
            self.confirm_seconds = now - self._connection.first_reply_at
        count = len(replies) - len(self._confirm_commands())
        if problem := self._find_unconfirmed(replies[count:]):
            raise RedisUnavailable(f"the batch is not confirmed: {problem}")
        return [
            CommitResult(abs(reply), reply < 0) if isinstance(reply, int) else reply
            for reply in replies[:count]
        ]

    def _find_unconfirmed(self, replies: list[Any]) -> str:
        return "" if self._view is None else find_unconfirmed(self._view, replies)

    async def revoke_epoch(self) -> None:
        """Revoke the epoch: the stream is ahead of the counter, so this server lost writes."""
        try:
            await self._connection.pipeline(
                make_evalsha(REVOKE_SEEN_EPOCH, [self._key_names.state], self.epoch)
            )
        except RedisUnavailable:
            pass  # the next commit fails in the same way, and calls this again

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def is_seeded_for(state: PartitionState, server: ServerInfo) -> bool:
    """Return whether a flusher has seeded the partition on this server process."""
    return state.server_id == server.server_id
