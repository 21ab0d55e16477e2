"""Makes Sentinels fail over: after the loss of the primary, and while it works."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from busyapi.stream.connection import Command, ServerError
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import parse_pairs
from busyapi.stream.sentinel import (
    SentinelPrimary,
    address_of,
    ask_sentinel,
    is_promotable,
    query_sentinel,
)

START_AGE_SECONDS = 0.55
"""How long ago the Sentinel that executes a hand-over has asked the chosen server. It promotes it
in 0.2 seconds, and learns of its success when it asks again: once a second in a failover."""
_FINAL = {"NOGOODSLAVE", "INPROG"}
"""Refusals of a failover that do not depend on how it is asked for."""


class Start(NamedTuple):
    """How a failover started."""

    refusal: str = ""
    """Why none starts, "" if one does."""
    is_coordinated: bool = False
    """The primary takes part: it pauses its writes until the other server has them."""


class Readiness(NamedTuple):
    """Which of the Sentinels that answer have read that they may promote a server."""

    unready: str
    """Which ones have not, "" if all have."""
    ages: dict[Address, float]
    """When each of the others has asked that server last, in seconds before now."""

    @property
    def delay(self) -> float:
        """Return in how many seconds a failover has the shortest time without a primary."""
        return max(0.0, START_AGE_SECONDS - min(self.ages.values(), default=START_AGE_SECONDS))

    @property
    def newest(self) -> tuple[Address, ...]:
        """Return the Sentinels that have read it, the one that has asked last first."""
        return tuple(sorted(self.ages, key=lambda node: self.ages[node]))


async def start_failover(endpoint: Endpoint, down: SentinelPrimary) -> str:
    """Make one of the Sentinels start a failover now; return why none does, "" if one does."""
    return (await _start(endpoint, down.sentinels, ())).refusal


async def start_handover(endpoint: Endpoint, sentinels: Sequence[Address]) -> Start:
    """Make a Sentinel replace a primary that works: together with it if the Sentinel can do that.

    Valkey 9 and newer can. Older ones, and Redis, promote the other server at once.
    """
    return await _start(endpoint, sentinels, ("COORDINATED",))


async def repeat_failover(endpoint: Endpoint) -> None:
    """Make a Sentinel promote the server that another one promoted before it was lost."""
    await _start(endpoint, endpoint.hosts, ())


async def read_readiness(endpoint: Endpoint, address: str) -> Readiness:
    """Return which Sentinels know that they may promote a server.

    One that does not answer does not count.
    """
    replies = await asyncio.gather(
        *(ask_sentinel(endpoint, node, "REPLICAS") for node in endpoint.hosts)
    )
    unready, ages = [], {}
    for node, reply in zip(endpoint.hosts, replies, strict=True):
        listed = {address_of(facts): facts for facts in map(parse_pairs, reply or ())}
        facts = listed.get(address)
        if facts and is_promotable(facts):
            ages[node] = int(facts["info-refresh"]) / 1000
        elif reply is not None:
            unready.append(f"{node[0]}:{node[1]}")
    who = f"Sentinel {', '.join(unready)}" if unready else ""
    return Readiness(who and f"{who} has not read the priority of {address}", ages)


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
