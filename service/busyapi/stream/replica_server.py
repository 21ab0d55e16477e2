"""One server of a replicated buffer, as the flusher inspects and changes it.

`replica-priority 0` means that no Sentinel promotes a server by itself. In the tier `replicated`
every server has it, and the flusher raises it for the one server that a failover may promote.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog

from busyapi.errors import RedisUnavailable
from busyapi.ids import Seq
from busyapi.stream.connection import Command, ServerError
from busyapi.stream.credentials import Credentials
from busyapi.stream.durability import ALWAYS_SETTINGS, AOF_WRITE_FAILED, parse_info
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.keys import PartitionKeys

log = structlog.get_logger()

INSPECT_TIMEOUT_SECONDS = 1.0
CHECK_SECONDS = 0.3
"""How long a primary may take to answer before it counts as lost."""
PRIORITY = "replica-priority"
UNPROMOTABLE, PROMOTABLE = 0, 1
REWRITE_STATES = ("in_progress", "scheduled")
_UNCHANGED_FILE = (
    "without a config file",
    "Read-only file system",
    "Permission denied",
    "Device or resource busy",
)
"""Replies to CONFIG REWRITE of a server that can never write its configuration file. Then a
Sentinel, which asks the same server for it, has not written a raised priority there either."""


class ServerData(NamedTuple):
    """What shows how far a server has the data of a partition."""

    run_id: str = ""
    """The process, "" if it was not reached."""
    archive_id: str = ""
    """The archive in the partition's record, "" if the server has no record."""
    seq: Seq | None = None
    """The last issued seq, None if the server has none or refuses to say."""
    replid: str = ""
    """The replication history of the data."""
    previous_replid: str = ""
    """The one that it continues, "" or zeros if there is none: that of the former primary after a
    promotion. A complete synchronization forgets it."""


class ReplicaServer(NamedTuple):
    """What an inspection of a replica found."""

    address: str
    was_reached: bool = False
    problem: str = ""
    """Why it must not confirm commits, "" if it may."""
    is_settling: bool = False
    """It loads its primary's data, or its append-only file is being rewritten. After a full
    synchronization the file is not active before the end of that."""
    is_unpromotable: bool = False
    """It was reached, and no Sentinel promotes it."""
    is_primary: bool = False
    offset: int = 0
    """How far it has its primary's data."""
    replid: str = ""
    """The replication history of its data."""
    data: ServerData = ServerData()


async def query_server(
    endpoint: Endpoint, address: Address, credentials: Credentials, *commands: Command
) -> list[Any]:
    """Send commands on a connection of their own; return the replies.

    Raises:
        RedisUnavailable: the server cannot be reached, or refuses the login.
    """
    connection = await endpoint.open_server(address, credentials)
    try:
        return await connection.pipeline(*commands)
    finally:
        await connection.close()


def data_commands(key_names: PartitionKeys) -> tuple[Command, Command]:
    """Return the commands whose replies `parse_data` parses."""
    return ("HMGET", key_names.state, "archive_id"), ("GET", key_names.seq)


def parse_data(facts: Mapping[str, str], record: Any, seq: Any) -> ServerData:
    """Parse INFO and the replies to `data_commands`; a reply that is an error counts as no data."""
    archive_id = record[0].decode() if isinstance(record, list) and record[0] else ""
    return ServerData(
        facts.get("run_id", ""),
        archive_id,
        Seq(int(seq)) if isinstance(seq, bytes) else None,
        facts.get("master_replid", ""),
        facts.get("master_replid2", ""),
    )


async def inspect_replica(
    endpoint: Endpoint, address: str, key_names: PartitionKeys
) -> ReplicaServer:
    """Return what a replica's settings, state and data are.

    Never raises: a server that cannot be inspected has a problem.
    """
    try:
        async with asyncio.timeout(INSPECT_TIMEOUT_SECONDS):
            return await _inspect(endpoint, address, key_names)
    except (RedisUnavailable, TimeoutError) as error:
        why = str(error) or f"no reply in {INSPECT_TIMEOUT_SECONDS:g} s"
        return ReplicaServer(address, problem=f"{address} cannot be inspected: {why}")


async def _inspect(endpoint: Endpoint, address: str, key_names: PartitionKeys) -> ReplicaServer:
    *infos, config, record, seq = await query_server(
        endpoint,
        split_address(address),
        endpoint.login,
        *(("INFO", section) for section in ("server", "replication", "persistence")),
        ("CONFIG", "GET", *ALWAYS_SETTINGS, PRIORITY),
        *data_commands(key_names),
    )
    facts: dict[str, str] = {}
    for reply in (*infos, config):
        if isinstance(reply, ServerError):
            raise RedisUnavailable(f"it refuses to be inspected: {reply}")
    for info in infos:
        facts |= parse_info(info)
    settings = parse_pairs(config)
    return ReplicaServer(
        address,
        was_reached=True,
        problem=_describe_problem(address, settings, facts),
        is_settling=facts.get("master_link_status") != "up"
        or "1" in {facts.get(f"aof_rewrite_{state}") for state in REWRITE_STATES},
        is_unpromotable=settings.get(PRIORITY) == str(UNPROMOTABLE),
        is_primary=facts.get("role") == "master",
        offset=int(facts.get("slave_repl_offset", 0)),
        replid=facts.get("master_replid", ""),
        data=parse_data(facts, record, seq),
    )


def _describe_problem(address: str, settings: dict[str, str], facts: dict[str, str]) -> str:
    lines = [
        f"{name} is {settings.get(name, 'unknown')}: set `{name} {value}`"
        for name, value in ALWAYS_SETTINGS.items()
        if settings.get(name) != value
    ]
    if not lines and facts.get("aof_enabled") != "1":
        lines.append("the append-only file is off (INFO persistence: aof_enabled)")
    if not lines and facts.get("aof_last_write_status") != "ok":
        lines.append(AOF_WRITE_FAILED)
    if not lines and facts.get("aof_last_bgrewrite_status") != "ok":
        lines.append("the last rewrite of its append-only file failed: see its log")
    return f"replica {address} must not confirm: {'; '.join(lines)}" if lines else ""


async def is_working(endpoint: Endpoint, address: str) -> bool | None:
    """Return whether a primary answers after all, None if it is silent.

    A Sentinel closes the connections to a server that it promotes. And a holder whose priority
    was raised must confirm until the Sentinels know that it is 0 again.
    """
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            server = await inspect_replica(endpoint, address, endpoint.key_names(0))
    except TimeoutError:
        return None
    return server.is_primary


async def raise_priority(endpoint: Endpoint, address: str) -> None:
    """Let Sentinels promote a server.

    The configuration file keeps 0: after a restart the server is not promoted.

    Raises:
        RedisUnavailable: the server cannot be reached, or refuses.
    """
    (changed,) = await query_server(
        endpoint, split_address(address), endpoint.login, ("CONFIG", "SET", PRIORITY, PROMOTABLE)
    )
    if isinstance(changed, ServerError):
        raise RedisUnavailable(_describe_refusal(address, PROMOTABLE, changed))


async def lower_priority(endpoint: Endpoint, address: str) -> str:
    """Set a server's priority to 0 for good; return why that failed, "" if it did not.

    A Sentinel writes the configuration file of a server that it promotes, with the raised priority.
    So the file must be written again, or a restart brings it back.
    """
    try:
        async with asyncio.timeout(INSPECT_TIMEOUT_SECONDS):
            replies = await query_server(
                endpoint,
                split_address(address),
                endpoint.login,
                ("CONFIG", "SET", PRIORITY, UNPROMOTABLE),
                ("CONFIG", "REWRITE"),
            )
    except (RedisUnavailable, TimeoutError) as error:
        return f"{address} cannot be reached to set `{PRIORITY} 0`: {error}"
    changed, written = replies
    if isinstance(changed, ServerError):
        return _describe_refusal(address, UNPROMOTABLE, changed)
    if not isinstance(written, ServerError):
        return ""
    if any(text in str(written) for text in _UNCHANGED_FILE):
        log.warning("priority_not_saved", server=address, detail=str(written))
        return ""
    return (
        f"write `{PRIORITY} 0` to the configuration file of {address}: the flusher may not, or"
        f" cannot ({written})"
    )


def _describe_refusal(address: str, priority: int, error: ServerError) -> str:
    return f"set `{PRIORITY} {priority}` on {address}: the flusher may not do it ({error})"


def split_address(address: str) -> Address:
    """Split `host:port`."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def parse_pairs(reply: list[bytes]) -> dict[str, str]:
    """Parse a reply of names and values: to CONFIG GET, and of a Sentinel."""
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
