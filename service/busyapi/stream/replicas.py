"""The replicas of a primary: what it lists, and which of them must confirm each commit.

A commit is confirmed by counting: WAIT and WAITAOF return how many replicas confirmed, not which.
A count stands for names only if no other replica can have been counted. So a `ReplicaView` holds
every connection that the primary lists, and its counters of synchronizations: as long as both are
the same, no replica has connected, and each listed connection is the one that was there before.

The flusher records which replicas must confirm. Its record names the view that it inspected: when a
replica connects again, commits wait until the flusher has inspected it, because a replica has no
active append-only file for a while after a full synchronization.
"""

import json
import re
from typing import Any, NamedTuple

from busyapi.stream.connection import Command, ServerError

VIEW_COMMAND: Command = ("INFO", "replication", "stats")
"""One command, so that the list and the counters belong together."""
ONLINE = "online"
MAX_PREDECESSORS = 20
"""More failovers than a flusher of another partition misses. It then skips ids."""
_REPLICA = re.compile(rb"^slave\d+:ip=([^,\r]*),port=(\d+),state=(\w+)", re.MULTILINE)
_LAG = re.compile(rb"^slave\d+:ip=([^,\r]*),port=(\d+),state=online,.*?lag=(\d+)", re.MULTILINE)
MAX_SILENCE_SECONDS = 3
"""A replica acknowledges once a second by itself."""
_SYNCS = re.compile(rb"^sync_(?:full|partial_ok):(\d+)", re.MULTILINE)


class ReplicaView(NamedTuple):
    """The replicas that a primary lists, and how many synchronizations it has begun."""

    states: tuple[tuple[str, str], ...]
    """The address and state of each connection, such as `("10.0.0.2:6379", "online")`."""
    syncs: str

    @property
    def listed(self) -> frozenset[str]:
        """The addresses of all connected replicas."""
        return frozenset(address for address, _ in self.states)

    @property
    def online(self) -> list[str]:
        """The addresses of the replicas that WAIT counts, one for each connection."""
        return [address for address, state in self.states if state == ONLINE]


class ReplicaRecord(NamedTuple):
    """What the flusher has recorded in Redis about the replicas of this server."""

    server_id: str
    """The server that the record is for. A copy of the data has it too, but another server id."""
    confirming: frozenset[str]
    """The replicas that must confirm each commit."""
    syncs: str
    """The counters of the view that the flusher inspected."""
    refusal: str = ""
    """Why no commit is allowed, "" if commits are."""
    predecessors: tuple[str, ...] = ()
    """The servers whose acknowledged usages this one had, all of them, when it replaced them."""

    @property
    def replid(self) -> str:
        """The replication history of that server."""
        return self.server_id.partition("-")[2]

    def encode(self) -> str:
        """Return the value of the key."""
        return json.dumps(self._asdict() | {"confirming": sorted(self.confirming)})

    def list_predecessors(self) -> tuple[str, ...]:
        """Return the predecessors of a server that has every acknowledged usage of this one."""
        return (*self.predecessors, self.server_id)[-MAX_PREDECESSORS:]


def parse_record(value: bytes | None) -> ReplicaRecord | None:
    """Parse the value of the key; return None if there is none, or another version wrote it."""
    try:
        members = json.loads(value or b"")
        return ReplicaRecord(
            str(members["server_id"]),
            frozenset(map(str, members["confirming"])),
            str(members["syncs"]),
            str(members["refusal"]),
            tuple(map(str, members.get("predecessors", ()))),
        )
    except (ValueError, KeyError, TypeError):
        return None


def parse_view(info: bytes) -> ReplicaView:
    """Parse the reply to `VIEW_COMMAND`."""
    return ReplicaView(
        tuple(
            (f"{host.decode()}:{int(port)}", state.decode())
            for host, port, state in _REPLICA.findall(info)
        ),
        b"-".join(_SYNCS.findall(info)).decode(),
    )


def parse_silent(info: bytes) -> frozenset[str]:
    """Return the online replicas that have acknowledged nothing for seconds."""
    return frozenset(
        f"{host.decode()}:{int(port)}"
        for host, port, lag in _LAG.findall(info)
        if int(lag) >= MAX_SILENCE_SECONDS
    )


def make_confirm_commands(view: ReplicaView, timeout_ms: int, *, aof: bool) -> list[Command]:
    """Return the commands behind a write whose replies `find_unconfirmed` judges.

    They wait for every online replica. One that need not confirm is counted too, so fewer than all
    would not prove that those confirmed which must.
    """
    count = len(view.online)
    wait_aof: list[Command] = [("WAITAOF", 1, count, timeout_ms)] if aof else []
    return [("WAIT", count, timeout_ms), *wait_aof, VIEW_COMMAND]


def find_unconfirmed(view: ReplicaView, replies: list[Any]) -> str:
    """Return why not all replicas of a view have confirmed the write, "" if they have."""
    for reply in replies:
        if isinstance(reply, ServerError):
            return f"Redis refuses to wait for replicas: {reply}"
    received, *synced, info = replies
    count = len(view.online)
    if received < count:
        return f"{received} of {count} replicas have received it"
    if synced and (synced[0][0] < 1 or synced[0][1] < count):
        return f"{synced[0][1]} of {count} replicas have synced it"
    if parse_view(info) != view:
        return "a replica has connected or disconnected"
    return ""


def describe_unconfirmed(
    record: ReplicaRecord | None, view: ReplicaView, server_id: str, minimum: int
) -> str:
    """Return why commits to this server could not be confirmed, "" if they can."""
    if record is None or record.server_id != server_id:
        return "the flusher has not yet recorded which replicas of this server must confirm"
    if record.refusal:
        return record.refusal
    if missing := record.confirming - frozenset(view.online):
        return (
            f"{describe_servers(missing)} must confirm and is not connected: wait until the flusher"
            " removes or inspects it"
        )
    if record.syncs != view.syncs:
        return "a replica has connected, and the flusher has not inspected it yet"
    if len(record.confirming) < minimum:
        return describe_too_few(record.confirming, minimum)
    return ""


def describe_too_few(confirming: frozenset[str], minimum: int) -> str:
    """Return that fewer replicas can confirm than the settings require."""
    return (
        f"{len(confirming)} replicas can confirm, BUSYAPI_MIN_REPLICAS is {minimum}: add replicas"
    )


def describe_servers(addresses: frozenset[str]) -> str:
    """Return the addresses as text."""
    return ", ".join(sorted(addresses))
