"""What Sentinels say about the primary, and a failover by them.

In the tier `replicated` every server has `replica-priority 0`, so Sentinels see that the primary is
down but promote no server until the flusher has raised the priority of one.
"""

import asyncio
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import ServerError
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import query_server

ASK_TIMEOUT_SECONDS = 1.0
_UNREACHABLE = {"s_down", "o_down", "disconnected"}


class DownPrimary(NamedTuple):
    """A primary that the Sentinels agree is down."""

    address: str
    sentinel: Address
    """A Sentinel that says so."""
    failover_timeout_seconds: float


async def find_down_primary(endpoint: Endpoint) -> DownPrimary | None:
    """Return the primary if a Sentinel says that a quorum of them finds it down."""
    replies = await asyncio.gather(*(_ask(endpoint, node, "MASTER") for node in endpoint.hosts))
    for node, reply in zip(endpoint.hosts, replies, strict=True):
        facts = _parse(reply or [])
        if "o_down" in facts.get("flags", "").split(","):
            seconds = int(facts["failover-timeout"]) / 1000
            return DownPrimary(f"{facts['ip']}:{facts['port']}", node, seconds)
    return None


async def start_failover(endpoint: Endpoint, node: Address) -> str:
    """Make a Sentinel start a failover now; return why it does not, "" if it does."""
    try:
        (reply,) = await query_server(
            endpoint, node, endpoint.sentinel_login, ("SENTINEL", "FAILOVER", endpoint.service)
        )
    except RedisUnavailable as error:
        return str(error)
    return str(reply) if isinstance(reply, ServerError) else ""


async def list_promotable(endpoint: Endpoint) -> frozenset[str]:
    """Return the replicas that a Sentinel reaches and may promote by itself."""
    replies = await asyncio.gather(*(_ask(endpoint, node, "REPLICAS") for node in endpoint.hosts))
    replicas = [_parse(replica) for reply in replies for replica in reply or []]
    return frozenset(
        f"{facts['ip']}:{facts['port']}"
        for facts in replicas
        if facts["slave-priority"] != "0" and not _UNREACHABLE & set(facts["flags"].split(","))
    )


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
