"""What Sentinels say about the primary and its replicas, and a failover by them.

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
_PROMOTING = {"send_slaveof_noone", "wait_promotion"}
_UNREACHABLE = {"s_down", "o_down", "disconnected"}


class DownPrimary(NamedTuple):
    """A primary that the Sentinels agree is down."""

    address: str
    sentinels: tuple[Address, ...]
    """The Sentinels that say so."""
    failover_timeout_seconds: float


class NamedPrimary(NamedTuple):
    """What one Sentinel says about the primary."""

    address: str
    epoch: int
    """The number of the failover that made it the primary."""
    is_promoting: bool
    """It has chosen another server, and has not promoted it yet."""


class SentinelView(NamedTuple):
    """The replicas that the Sentinels know, all of them together."""

    listed: frozenset[str]
    promotable: frozenset[str]
    """The ones that a Sentinel reaches and may promote by itself. Its knowledge of a priority is up
    to ten seconds old."""
    primaries: tuple[NamedPrimary, ...] = ()
    """What each Sentinel said after that: one may promote a server that was promotable before."""

    def find_replacement(self, address: str) -> str:
        """Return why a primary may no longer be the primary soon, "" if it stays.

        Behind the newest failover, a Sentinel may name a former primary for some seconds.
        """
        epoch = max(
            (named.epoch for named in self.primaries if named.address == address), default=-1
        )
        for named in self.primaries:
            if named.is_promoting:
                return "a Sentinel is promoting another server"
            if named.address != address and named.epoch > epoch:
                return f"a Sentinel names {named.address} as the primary, after {address}"
        return ""


async def find_down_primary(endpoint: Endpoint) -> DownPrimary | None:
    """Return the primary if Sentinels say that a quorum of them finds it down."""
    replies = await asyncio.gather(*(_ask(endpoint, node, "MASTER") for node in endpoint.hosts))
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


async def start_failover(endpoint: Endpoint, down: DownPrimary) -> str:
    """Make one of the Sentinels start a failover now; return why none does, "" if one does."""
    reasons = []
    for host, port in down.sentinels:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                (reply,) = await query_server(
                    endpoint,
                    (host, port),
                    endpoint.sentinel_login,
                    ("SENTINEL", "FAILOVER", endpoint.service),
                )
        except (RedisUnavailable, TimeoutError) as error:
            reply = error
        is_running = isinstance(reply, ServerError) and reply.code == "INPROG"
        if is_running or not isinstance(reply, Exception):
            return ""
        reasons.append(f"Sentinel {host}:{port}: {reply or 'no reply'}")
    return "; ".join(reasons)


async def read_view(endpoint: Endpoint) -> SentinelView | None:
    """Return what the Sentinels know, None if none of them answers."""
    replies = await asyncio.gather(*(_ask_view(endpoint, node) for node in endpoint.hosts))
    answered = [reply for reply in replies if reply is not None]
    if not answered:
        return None
    replicas = [_parse(replica) for listed, _, _ in answered for replica in listed]
    return SentinelView(
        frozenset(map(_address_of, replicas)),
        frozenset(_address_of(replica) for replica in replicas if _is_promotable(replica)),
        tuple(_parse_primary(master, address) for _, master, address in answered if address),
    )


async def _ask_view(endpoint: Endpoint, node: Address) -> list[Any] | None:
    """Return a Sentinel's replicas, then its primary, in this order; None without an answer."""
    words = ("REPLICAS", "MASTER", "GET-MASTER-ADDR-BY-NAME")
    commands = [("SENTINEL", word, endpoint.service) for word in words]
    try:
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
            replies = await query_server(endpoint, node, endpoint.sentinel_login, *commands)
    except (RedisUnavailable, TimeoutError):
        return None
    return None if any(isinstance(reply, ServerError) for reply in replies) else replies


def _parse_primary(master: list[bytes], address: list[bytes]) -> NamedPrimary:
    facts = _parse(master)
    host, port = address
    return NamedPrimary(
        f"{host.decode()}:{int(port)}",
        int(facts["config-epoch"]),
        facts.get("failover-state") in _PROMOTING,
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
