"""Makes Sentinels fail over: after the loss of the primary, and while it works."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from busyapi.stream.connection import Command, ServerError
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import parse_pairs
from busyapi.stream.sentinel import SentinelPrimary
from busyapi.stream.sentinel_queries import ask_sentinel, list_promotable, query_sentinel

_FINAL = {"NOGOODSLAVE", "INPROG"}
"""Refusals of a failover that do not depend on how it is asked for."""


class Start(NamedTuple):
    """How a failover started."""

    refusal: str = ""
    """Why none starts, "" if one does."""
    is_coordinated: bool = False
    """The primary takes part: it pauses its writes until the other server has them."""


async def start_failover(endpoint: Endpoint, down: SentinelPrimary) -> str:
    """Make one of the Sentinels start a failover now; return why none does, "" if one does."""
    return (await _start(endpoint, down.sentinels, ())).refusal


async def start_handover(endpoint: Endpoint) -> Start:
    """Make a Sentinel replace a primary that works: together with it if the Sentinel can do that.

    Valkey 9 and newer can. Older ones, and Redis, promote the other server at once.
    """
    return await _start(endpoint, endpoint.hosts, ("COORDINATED",))


async def repeat_failover(endpoint: Endpoint) -> None:
    """Make a Sentinel promote the server that another one promoted before it was lost."""
    await _start(endpoint, endpoint.hosts, ())


async def find_unready(endpoint: Endpoint, address: str) -> str:
    """Return which Sentinels have not read yet that they may promote a server, "" if all have.

    One that does not answer does not count.
    """
    replies = await asyncio.gather(
        *(ask_sentinel(endpoint, node, "REPLICAS") for node in endpoint.hosts)
    )
    unready = [
        f"{host}:{port}"
        for (host, port), reply in zip(endpoint.hosts, replies, strict=True)
        if reply is not None and address not in list_promotable(map(parse_pairs, reply))
    ]
    if not unready:
        return ""
    return f"Sentinel {', '.join(unready)} has not read the priority of {address}"


async def _start(endpoint: Endpoint, sentinels: Sequence[Address], words: Command) -> Start:
    reasons = []
    for node in sentinels:
        reply = await query_sentinel(endpoint, node, "FAILOVER", *words)
        is_coordinated = bool(words)
        if words and isinstance(reply, ServerError) and reply.code not in _FINAL:
            reply = await query_sentinel(endpoint, node, "FAILOVER")
            is_coordinated = False
        is_running = isinstance(reply, ServerError) and reply.code == "INPROG"
        if is_running or not isinstance(reply, Exception):
            return Start(is_coordinated=is_coordinated)
        reasons.append(f"Sentinel {node[0]}:{node[1]}: {reply or 'no reply'}")
    return Start("; ".join(reasons))
