"""One server of a replicated buffer, as the flusher inspects and changes it.

`replica-priority 0` means that no Sentinel promotes a server by itself. In the tier `replicated`
every server has it, and the flusher raises it for the one server that a failover may promote.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import Command, ServerError
from busyapi.stream.credentials import Credentials
from busyapi.stream.durability import ALWAYS_SETTINGS, AOF_WRITE_FAILED, parse_info
from busyapi.stream.endpoint import Address, Endpoint

INSPECT_TIMEOUT_SECONDS = 1.0
PRIORITY = "replica-priority"
UNPROMOTABLE, PROMOTABLE = 0, 1
REWRITE_STATES = ("in_progress", "scheduled")


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


async def inspect_replica(endpoint: Endpoint, address: str, *, lower: bool) -> ReplicaServer:
    """Return what a replica's settings and state are; `lower` its priority to 0 if it has another.

    Never raises: a server that cannot be inspected has a problem.
    """
    try:
        async with asyncio.timeout(INSPECT_TIMEOUT_SECONDS):
            return await _inspect(endpoint, address, lower=lower)
    except (RedisUnavailable, TimeoutError) as error:
        why = str(error) or f"no reply in {INSPECT_TIMEOUT_SECONDS:g} s"
        return ReplicaServer(address, problem=f"{address} cannot be inspected: {why}")


async def _inspect(endpoint: Endpoint, address: str, *, lower: bool) -> ReplicaServer:
    replication, persistence, config = await query_server(
        endpoint,
        _split(address),
        endpoint.login,
        ("INFO", "replication"),
        ("INFO", "persistence"),
        ("CONFIG", "GET", *ALWAYS_SETTINGS, PRIORITY),
    )
    for reply in (replication, persistence, config):
        if isinstance(reply, ServerError):
            raise RedisUnavailable(f"it refuses to be inspected: {reply}")
    facts = parse_info(replication) | parse_info(persistence)
    settings = _parse_pairs(config)
    is_unpromotable = settings.get(PRIORITY) == str(UNPROMOTABLE)
    if lower and not is_unpromotable:
        await set_priority(endpoint, address, UNPROMOTABLE)
        is_unpromotable = True
    return ReplicaServer(
        address,
        was_reached=True,
        problem=_describe_problem(address, settings, facts),
        is_settling=facts.get("master_link_status") != "up"
        or "1" in {facts.get(f"aof_rewrite_{state}") for state in REWRITE_STATES},
        is_unpromotable=is_unpromotable,
        is_primary=facts.get("role") == "master",
        offset=int(facts.get("slave_repl_offset", 0)),
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


async def set_priority(endpoint: Endpoint, address: str, priority: int) -> None:
    """Set a server's priority, and write it to its configuration file if it has one.

    Raises:
        RedisUnavailable: the server cannot be reached, or refuses.
    """
    changed, written = await query_server(
        endpoint,
        _split(address),
        endpoint.login,
        ("CONFIG", "SET", PRIORITY, priority),
        ("CONFIG", "REWRITE"),
    )
    # A server without a configuration file has its settings from its command line.
    if isinstance(changed, ServerError) or (
        isinstance(written, ServerError) and "without a config file" not in str(written)
    ):
        refusal = changed if isinstance(changed, ServerError) else written
        raise RedisUnavailable(
            f"set `{PRIORITY} {priority}` on {address}: the flusher may not do it ({refusal})"
        )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _parse_pairs(reply: list[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
