"""The replicas of a partition's server, on its flusher's connection."""

from collections.abc import Callable
from typing import NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError, make_evalsha
from busyapi.stream.durability import has_waitaof, parse_info
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.replica_server import (
    PRIORITY,
    UNPROMOTABLE,
    ServerData,
    data_commands,
    parse_data,
    parse_pairs,
    split_address,
)
from busyapi.stream.replicas import (
    VIEW_COMMAND,
    ReplicaRecord,
    ReplicaView,
    find_unconfirmed,
    make_confirm_commands,
    parse_record,
    parse_silent,
    parse_view,
)
from busyapi.stream.scripts import RECORD_REPLICAS

SILENCE = "repl-timeout"
"""How long a silent replica stays connected, in seconds. Commits wait for it."""
PAUSE_MS = 40
"""How long a primary pauses its writes at most until the server that replaces it has them: enough
for the last ones to arrive."""
CONFIRM_TIMEOUT_MS = 400
"""How long replicas may take to confirm a record. The flusher renews its lease afterwards."""
FAILOVER_CONFIRM_TIMEOUT_MS = 100
"""The same for the first record after a failover, when a replica often ends."""


class PrimaryReplicas(NamedTuple):
    """A primary with its replicas, and what is recorded about them."""

    address: str
    server_id: str
    view: ReplicaView
    record: ReplicaRecord | None
    can_confirm_aof: bool
    data: ServerData
    silent: frozenset[str] = frozenset()
    """The replicas that are online and have acknowledged nothing for seconds."""

    @property
    def replid(self) -> str:
        """The replication history that its replicas have too."""
        return self.server_id.partition("-")[2]

    def is_unchanged(self, other: "PrimaryReplicas | None") -> bool:
        """Return whether only the data differs."""
        return other is not None and self._replace(data=other.data) == other


class ReplicaStore:
    """The record of the replicas that must confirm. Its flusher must hold the lease to write it."""

    def __init__(
        self,
        endpoint: Endpoint,
        key_names: PartitionKeys,
        lease: str,
        connection: Callable[[], RedisConnection],
    ) -> None:
        self.endpoint = endpoint
        self.is_decider = key_names.is_decider
        self.may_hand_over = key_names.is_decider and endpoint.mode == "sentinel"
        """Whether this flusher replaces a primary that asks for it."""
        self._key_names, self._lease, self._open_connection = key_names, lease, connection

    @property
    def connection(self) -> RedisConnection:
        """The flusher's connection to the primary."""
        return self._open_connection()

    async def read(self) -> PrimaryReplicas:
        """Return the primary, its replicas and the record.

        Raises:
            RedisUnavailable: the connection failed, or the server refuses or is not a primary.
        """
        connection = self.connection
        view, server, record, *data = await connection.pipeline(
            VIEW_COMMAND,
            ("INFO", "server"),
            ("GET", self._key_names.replicas),
            *data_commands(self._key_names),
        )
        for reply in (view, server, record):
            if isinstance(reply, ServerError):
                raise RedisUnavailable(f"Redis refuses reads: {reply}")
        facts = parse_info(server) | parse_info(view)
        if facts.get("role") != "master":
            # What it lists are replicas of a replica.
            raise RedisUnavailable(f"Redis at {connection.address} is a replica")
        return PrimaryReplicas(
            connection.address,
            f"{facts['run_id']}-{facts['master_replid']}",
            parse_view(view),
            parse_record(record),
            has_waitaof(facts),
            parse_data(facts, *data),
            parse_silent(view),
        )

    async def write(
        self, record: ReplicaRecord, primary: PrimaryReplicas, *, after_failover: bool
    ) -> str:
        """Write the record, and return why the replicas of a view have not confirmed it.

        A replica that confirms the record has everything that was committed before it.
        `after_failover`: the primary may have just replaced another one.

        Raises:
            RedisUnavailable: the reply was lost, or the flusher does not hold the lease.
        """
        names = self._key_names
        timeout_ms = FAILOVER_CONFIRM_TIMEOUT_MS if after_failover else CONFIRM_TIMEOUT_MS
        wait = make_confirm_commands(primary.view, timeout_ms, aof=primary.can_confirm_aof)
        written, *replies = await self.connection.pipeline(
            make_evalsha(
                RECORD_REPLICAS, [names.replicas, names.lease], self._lease, record.encode()
            ),
            *wait,
        )
        if isinstance(written, ServerError):
            raise RedisUnavailable(f"Redis refuses the record of replicas: {written}")
        return find_unconfirmed(primary.view, replies)

    async def read_role(self) -> tuple[str, str]:
        """Return the role of the server, and the state of its FAILOVER.

        Raises:
            RedisUnavailable: the connection failed, or the server refuses.
        """
        (reply,) = await self.connection.pipeline(("INFO", "replication"))
        if isinstance(reply, ServerError):
            raise RedisUnavailable(f"Redis refuses reads: {reply}")
        facts = parse_info(reply)
        return facts["role"], facts.get("master_failover_state", "")

    async def pause_for_failover(self, target: str) -> None:
        """Make the primary pause its writes, and become a replica of the target, if allowed.

        A replica acknowledges by itself once a second only. The target is a holder, so it has all
        acknowledged usages without that, and the primary waits just until the last writes arrive.

        Raises:
            RedisUnavailable: the connection failed.
        """
        host, port = split_address(target)
        await self.connection.pipeline(("FAILOVER", "TO", host, port, "FORCE", "TIMEOUT", PAUSE_MS))

    async def force_failover(self, target: str) -> None:
        """End the wait of a Sentinel's FAILOVER for the last acknowledgement, if allowed.

        Raises:
            RedisUnavailable: the connection failed.
        """
        host, port = split_address(target)
        # In one packet: writes stay paused in between.
        await self.connection.pipeline(
            ("FAILOVER", "ABORT"), ("FAILOVER", "TO", host, port, "FORCE", "TIMEOUT", 1)
        )

    async def disconnect_replicas(self) -> None:
        """Close the connections of all replicas on the primary, if allowed.

        Redis does not say which connection is that of a silent one. Those that work connect again
        at once, and continue where they were.

        Raises:
            RedisUnavailable: the connection failed.
        """
        await self.connection.pipeline(("CLIENT", "KILL", "TYPE", "replica"))

    async def end_pause(self) -> None:
        """Let a former primary follow its successor at once, if allowed.

        A Sentinel also pauses the clients of the primary, for longer than the FAILOVER takes. That
        pauses what the new primary sends too, so the former one would confirm nothing.

        Raises:
            RedisUnavailable: the connection failed.
        """
        await self.connection.pipeline(("CLIENT", "UNPAUSE"))

    async def end_handover(self) -> None:
        """Delete the request; an expiry in the past does it, as the ACL does not allow DEL.

        Raises:
            RedisUnavailable: the connection failed.
        """
        await self.connection.pipeline(("PEXPIRE", self._key_names.handover, 0))

    async def read_settings(self) -> dict[str, str]:
        """Return the primary's settings about replicas, none if it does not allow CONFIG GET.

        Raises:
            RedisUnavailable: the connection failed.
        """
        (reply,) = await self.connection.pipeline(("CONFIG", "GET", PRIORITY, SILENCE))
        return {} if isinstance(reply, ServerError) else parse_pairs(reply)


def describe_promotable(address: str) -> str:
    """Return what to set so that no Sentinel promotes a server by itself."""
    return f"set `{PRIORITY} {UNPROMOTABLE}` on {address}, and in its configuration file"
