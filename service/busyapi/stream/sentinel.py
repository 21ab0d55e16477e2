"""What Sentinels say about the primary.

In the tier `replicated` every server has `replica-priority 0`, so Sentinels see that the primary is
down but promote no server until the flusher has raised the priority of one.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import parse_pairs
from busyapi.stream.sentinel_queries import (
    ASK_TIMEOUT_SECONDS,
    address_of,
    ask_sentinel,
    flags_of,
)

LATE_SECONDS = 0.1
"""How long the Sentinels are waited for that have not answered when a majority has."""
_NOT_ELECTED = {"none", "wait_start"}


class SentinelPrimary(NamedTuple):
    """The primary as the Sentinels that answer see it, all of them together."""

    address: str
    sentinels: tuple[Address, ...]
    """The Sentinels that answer, and have not begun a failover."""
    failover_timeout_seconds: float
    is_suspected: bool = False
    """A Sentinel finds it down."""
    is_down: bool = False
    """A quorum of Sentinels finds it down."""
    is_failing_over: bool = False
    """A Sentinel that the others elected executes a failover."""


async def read_primary(endpoint: Endpoint) -> SentinelPrimary | None:
    """Return what the Sentinels say about the primary, None if none of them answers.

    They ask each other once a second. Here their answers are counted at once.
    """
    replies = await _ask_most(endpoint, "MASTER")
    pairs = zip(endpoint.hosts, replies, strict=True)
    known = [(node, parse_pairs(reply)) for node, reply in pairs if reply]
    if not known:
        return None
    down = [facts for _, facts in known if {"s_down", "o_down"} & flags_of(facts)]
    facts = down[0] if down else known[0][1]
    address = address_of(facts)
    count = sum(address_of(other) == address for other in down)
    flags = {flag for _, other in known for flag in flags_of(other)}
    states = {other.get("failover-state", "none") for _, other in known}
    return SentinelPrimary(
        address,
        # One without a majority, as after its restart, waits for seconds and would refuse.
        tuple(node for node, other in known if "failover_in_progress" not in flags_of(other)),
        int(facts["failover-timeout"]) / 1000,
        is_suspected=bool(down),
        is_down="o_down" in flags or count >= int(facts["quorum"]),
        is_failing_over=not states <= _NOT_ELECTED,
    )


async def _ask_most(endpoint: Endpoint, word: str) -> list[Any]:
    """Return the Sentinels' replies, None for one that is late when a majority has answered.

    The Sentinel beside a primary that was lost does not answer at all.
    """
    tasks = [asyncio.ensure_future(ask_sentinel(endpoint, node, word)) for node in endpoint.hosts]
    pending = set(tasks)
    try:
        while pending and sum(_has_answered(task) for task in tasks) <= len(tasks) // 2:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        silent = endpoint.silent_nodes
        late = {
            task
            for node, task in zip(endpoint.hosts, tasks, strict=True)
            if not task.done() and not silent.is_silent(node, ASK_TIMEOUT_SECONDS)
        }
        if late:
            await asyncio.wait(late, timeout=LATE_SECONDS)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return [task.result() if _has_answered(task) else None for task in tasks]


def _has_answered(task: asyncio.Future[Any]) -> bool:
    return task.done() and not task.cancelled() and task.result() is not None
