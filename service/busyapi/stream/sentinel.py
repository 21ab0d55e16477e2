"""What Sentinels say about the primary and its replicas, and a failover by them.

In the tier `replicated` every server has `replica-priority 0`, so Sentinels see that the primary is
down but promote no server until the flusher has raised the priority of one.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import Command, ServerError
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import query_server

ASK_TIMEOUT_SECONDS = 1.0
_FINAL = {"NOGOODSLAVE", "INPROG"}
"""Refusals of a failover that do not depend on how it is asked for."""
_UNREACHABLE = {"s_down", "o_down", "disconnected"}


class DownPrimary(NamedTuple):
    """A primary that the Sentinels agree is down."""

    address: str
    sentinels: tuple[Address, ...]
    """The Sentinels that say so."""
    failover_timeout_seconds: float


class SentinelView(NamedTuple):
    """The servers that the Sentinels know, all of them together."""

    listed: frozenset[str]
    promotable: frozenset[str]
    """The ones that a Sentinel reaches and may promote by itself. Its knowledge of a priority is up
    to ten seconds old."""


async def find_down_primary(endpoint: Endpoint) -> DownPrimary | None:
    """Return the primary if Sentinels say that a quorum of them finds it down."""
    replies = await _ask_all(endpoint, "MASTER")
    known = [
        (node, _parse(reply)) for node, reply in zip(endpoint.hosts, replies, strict=True) if reply
    ]
    down = [(node, facts) for node, facts in known if "o_down" in facts["flags"].split(",")]
    if not down:
        return None
    facts = down[0][1]
    return DownPrimary(
        f"{facts['ip']}:{facts['port']}",
        tuple(node for node, _ in down),
        int(facts["failover-timeout"]) / 1000,
    )


async def read_failover_seconds(endpoint: Endpoint) -> float | None:
    """Return the `failover-timeout` of the Sentinels, None if none of them answers."""
    replies = await _ask_all(endpoint, "MASTER")
    seconds = [int(_parse(reply)["failover-timeout"]) / 1000 for reply in replies if reply]
    return max(seconds, default=None)


class Start(NamedTuple):
    """How a failover started."""

    refusal: str = ""
    """Why none starts, "" if one does."""
    is_coordinated: bool = False
    """The primary takes part: it pauses its writes until the other server has them."""


async def start_failover(endpoint: Endpoint, down: DownPrimary) -> str:
    """Make one of the Sentinels start a failover now; return why none does, "" if one does."""
    return (await _start(endpoint, down.sentinels, ())).refusal


async def start_handover(endpoint: Endpoint) -> Start:
    """Make a Sentinel replace a primary that works: together with it if the Sentinel can do that.

    Valkey 9 and newer can. Older ones, and Redis, promote the other server at once.
    """
    return await _start(endpoint, endpoint.hosts, ("COORDINATED",))


async def _start(endpoint: Endpoint, sentinels: Sequence[Address], words: Command) -> Start:
    reasons = []
    for node in sentinels:
        reply = await _order_failover(endpoint, node, words)
        is_coordinated = bool(words)
        if words and isinstance(reply, ServerError) and reply.code not in _FINAL:
            reply = await _order_failover(endpoint, node, ())
            is_coordinated = False
        is_running = isinstance(reply, ServerError) and reply.code == "INPROG"
        if is_running or not isinstance(reply, Exception):
            return Start(is_coordinated=is_coordinated)
        reasons.append(f"Sentinel {node[0]}:{node[1]}: {reply or 'no reply'}")
    return Start("; ".join(reasons))


async def _order_failover(endpoint: Endpoint, node: Address, words: Command) -> Any:
    """Return the Sentinel's reply, or the error."""
    command = ("SENTINEL", "FAILOVER", endpoint.service, *words)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            (reply,) = await query_server(endpoint, node, endpoint.sentinel_login, command)
    except (RedisUnavailable, TimeoutError) as error:
        return error
    return reply


async def read_view(endpoint: Endpoint) -> SentinelView | None:
    """Return what the Sentinels know about replicas, None if none of them answers."""
    lists, primaries = await asyncio.gather(
        _ask_all(endpoint, "REPLICAS"), _ask_all(endpoint, "MASTER")
    )
    if not any(reply is not None for reply in lists):
        return None
    replicas = [_parse(replica) for reply in lists for replica in reply or ()]
    # Right after a failover, the Sentinels still list a former primary as the primary.
    servers = replicas + [_parse(reply) for reply in primaries if reply]
    return SentinelView(
        frozenset(map(_address_of, servers)),
        frozenset(_address_of(replica) for replica in replicas if _is_promotable(replica)),
    )


def _is_promotable(replica: dict[str, str]) -> bool:
    # A Sentinel that has not yet read the INFO of a replica assumes priority 100, but does not
    # promote the replica either.
    is_known = replica["info-refresh"] != "0" or replica["slave-repl-offset"] != "0"
    return (
        is_known
        and replica["slave-priority"] != "0"
        and not _UNREACHABLE & set(replica["flags"].split(","))
    )


def _address_of(facts: dict[str, str]) -> str:
    return f"{facts['ip']}:{facts['port']}"


async def _ask_all(endpoint: Endpoint, word: str) -> list[Any]:
    return await asyncio.gather(*(_ask(endpoint, node, word) for node in endpoint.hosts))


async def _ask(endpoint: Endpoint, node: Address, word: str) -> Any:
    """Return a Sentinel's reply, None if it does not answer."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            (reply,) = await query_server(
                endpoint, node, endpoint.sentinel_login, ("SENTINEL", word, endpoint.service)
            )
    except (RedisUnavailable, TimeoutError):
        return None
    return None if isinstance(reply, ServerError) else reply


def _parse(reply: list[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))
