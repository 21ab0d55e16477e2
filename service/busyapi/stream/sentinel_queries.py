"""Questions to Sentinels, and what their replies say about a server."""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

from busyapi.errors import RedisUnavailable
from busyapi.stream.connect import FEW_TRIES
from busyapi.stream.endpoint import Address, Endpoint

ASK_TIMEOUT_SECONDS = 1.0
_UNREACHABLE = {"s_down", "o_down", "disconnected"}


async def ask_sentinel(endpoint: Endpoint, node: Address, word: str) -> Any:
    """Return a Sentinel's reply, None if it does not answer or refuses."""
    reply = await query_sentinel(endpoint, node, word)
    return None if isinstance(reply, Exception) else reply


async def query_sentinel(endpoint: Endpoint, node: Address, word: str, *more: str) -> Any:
    """Return a Sentinel's reply, or the exception that took its place."""
    (reply,) = await query_each(endpoint, node, (word, *more))
    return reply


async def query_each(endpoint: Endpoint, node: Address, *questions: tuple[str, ...]) -> list[Any]:
    """Return a Sentinel's replies in order, each of them or the exception that took its place.

    A question is a word of SENTINEL, and what follows the name of the service.
    """
    commands = [("SENTINEL", word, endpoint.service, *more) for word, *more in questions]
    silent, asked_at, has_answered = endpoint.silent_nodes, monotonic(), False
    # A failover whose start is not known would be asked of the next one too.
    seconds = ASK_TIMEOUT_SECONDS
    if questions[0][0] != "FAILOVER":
        seconds = silent.limit_seconds(node, seconds)
    try:
        async with asyncio.timeout(seconds):
            connection = await endpoint.open_server(node, endpoint.sentinel_login, tries=FEW_TRIES)
            try:
                replies = await connection.pipeline(*commands)
            finally:
                await connection.close()
            has_answered = True
            return replies
    except (RedisUnavailable, TimeoutError) as error:
        return [error] * len(commands)
    finally:
        if has_answered:
            silent.record_answer(node)
        else:  # also if it was late, and the caller waits no longer
            silent.record_silence(node, monotonic() - asked_at)


def list_promotable(replicas: Iterable[dict[str, str]]) -> frozenset[str]:
    """Return which replicas a Sentinel reaches and may promote by itself."""
    return frozenset(address_of(replica) for replica in replicas if _is_promotable(replica))


def _is_promotable(replica: dict[str, str]) -> bool:
    # A Sentinel that has not yet read the INFO of a replica assumes priority 100, but does not
    # promote the replica either.
    is_known = replica["info-refresh"] != "0" or replica["slave-repl-offset"] != "0"
    return is_known and replica["slave-priority"] != "0" and not _UNREACHABLE & flags_of(replica)


def flags_of(facts: dict[str, str]) -> set[str]:
    """Return the flags of a server, such as `s_down`."""
    return set(facts["flags"].split(","))


def address_of(facts: dict[str, str]) -> str:
    """Return the address under which a Sentinel knows a server."""
    return f"{facts['ip']}:{facts['port']}"
