"""What Sentinels say about the primary and its replicas.

In the tier `replicated` every server has `replica-priority 0`, so Sentinels see that the primary is
down but promote no server until the flusher has raised the priority of one.
"""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connect import FEW_TRIES
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import parse_pairs

ASK_TIMEOUT_SECONDS = 1.0
LATE_SECONDS = 0.1
"""How long the Sentinels are waited for that have not answered when a majority has."""
_NOT_ELECTED = {"none", "wait_start"}
_PROMOTING = {"send_slaveof_noone", "wait_promotion"}
_UNREACHABLE = {"s_down", "o_down", "disconnected"}


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


class NamedPrimary(NamedTuple):
    """What one Sentinel says about the primary."""

    address: str
    epoch: int
    """The number of the failover that made it the primary."""
    is_promoting: bool
    """It has chosen another server, and has not promoted it yet."""


class SentinelView(NamedTuple):
    """The servers that the Sentinels know, all of them together."""

    listed: frozenset[str]
    promotable: frozenset[str]
    """The ones that a Sentinel reaches and may promote by itself. Its knowledge of a priority is up
    to ten seconds old."""
    failover_obstacle: str = ""
    """Why no Sentinel could start a failover now, "" if one could."""
    idle: frozenset[str] = frozenset()
    """The ones that no Sentinel promotes: each Sentinel knows that the priority is 0, and executes
    no failover. Empty if a Sentinel does not answer."""
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


async def read_primary(endpoint: Endpoint) -> SentinelPrimary | None:
    """Return what the Sentinels say about the primary, None if none of them answers.

    They ask each other once a second. Here their answers are counted at once.
    """
    replies = await _ask_most(endpoint, "MASTER")
    pairs = zip(endpoint.hosts, replies, strict=True)
    known = [(node, parse_pairs(reply)) for node, reply in pairs if reply]
    if not known:
        return None
    down = [facts for _, facts in known if {"s_down", "o_down"} & _flags_of(facts)]
    facts = down[0] if down else known[0][1]
    address = address_of(facts)
    count = sum(address_of(other) == address for other in down)
    flags = {flag for _, other in known for flag in _flags_of(other)}
    states = {other.get("failover-state", "none") for _, other in known}
    return SentinelPrimary(
        address,
        # One without a majority, as after its restart, waits for seconds and would refuse.
        tuple(node for node, other in known if "failover_in_progress" not in _flags_of(other)),
        int(facts["failover-timeout"]) / 1000,
        is_suspected=bool(down),
        is_down="o_down" in flags or count >= int(facts["quorum"]),
        is_failing_over=not states <= _NOT_ELECTED,
    )


async def read_view(endpoint: Endpoint) -> SentinelView | None:
    """Return what the Sentinels know, None if none of them answers."""
    views, obstacle = await asyncio.gather(
        asyncio.gather(*(_ask_view(endpoint, node) for node in endpoint.hosts)),
        _find_obstacle(endpoint),
    )
    answered = [view for view in views if view is not None]
    if not answered:
        return None
    replicas = [parse_pairs(replica) for listed, _, _ in answered for replica in listed]
    # Right after a failover, the Sentinels still list a former primary as the primary.
    servers = replicas + [parse_pairs(primary) for _, primary, _ in answered]
    return SentinelView(
        frozenset(map(address_of, servers)),
        _list_promotable(replicas),
        obstacle,
        _find_idle(endpoint, views),
        tuple(_parse_primary(primary, address) for _, primary, address in answered if address),
    )


async def _find_obstacle(endpoint: Endpoint) -> str:
    """Return why no Sentinel has a quorum and a majority, "" if one has both."""
    replies = await asyncio.gather(
        *(query_sentinel(endpoint, node, "CKQUORUM") for node in endpoint.hosts)
    )
    if not all(isinstance(reply, Exception) for reply in replies):
        return ""
    return "; ".join(
        f"Sentinel {host}:{port}: {reply or 'no reply'}"
        for (host, port), reply in zip(endpoint.hosts, replies, strict=True)
    )


async def _ask_view(endpoint: Endpoint, node: Address) -> list[Any] | None:
    """Return a Sentinel's replicas, its primary, and that one's address; None without an answer.

    In this order: a Sentinel that knows of priority 0 begins no failover afterwards, and one that
    has begun it before shows that.
    """
    words = ("REPLICAS", "MASTER", "GET-MASTER-ADDR-BY-NAME")
    replies = await _query_each(endpoint, node, *((word,) for word in words))
    return None if any(isinstance(reply, Exception) for reply in replies) else replies


def _parse_primary(master: list[bytes], address: list[bytes]) -> NamedPrimary:
    facts = parse_pairs(master)
    host, port = address
    return NamedPrimary(
        f"{host.decode()}:{int(port)}",
        int(facts["config-epoch"]),
        facts.get("failover-state") in _PROMOTING,
    )


def _find_idle(endpoint: Endpoint, views: list[list[Any] | None]) -> frozenset[str]:
    idle: list[set[str]] = []
    for view in views:
        if view is None:
            return frozenset()
        replicas, primary, _ = view
        facts = parse_pairs(primary)
        knows_others = int(facts["num-other-sentinels"]) == len(endpoint.hosts) - 1
        if not knows_others or {"failover_in_progress", "o_down"} & _flags_of(facts):
            return frozenset()
        listed = map(parse_pairs, replicas)
        idle.append({address_of(other) for other in listed if other["slave-priority"] == "0"})
    return frozenset(set.intersection(*idle)) if idle else frozenset()


def _list_promotable(replicas: Iterable[dict[str, str]]) -> frozenset[str]:
    return frozenset(address_of(replica) for replica in replicas if is_promotable(replica))


def is_promotable(replica: dict[str, str]) -> bool:
    """Return whether a Sentinel may promote a replica, by what it says about it."""
    # A Sentinel that has not yet read the INFO of a replica assumes priority 100, but does not
    # promote the replica either.
    is_known = replica["info-refresh"] != "0" or replica["slave-repl-offset"] != "0"
    return is_known and replica["slave-priority"] != "0" and not _UNREACHABLE & _flags_of(replica)


def _flags_of(facts: dict[str, str]) -> set[str]:
    return set(facts["flags"].split(","))


def address_of(facts: dict[str, str]) -> str:
    """Return the address of a server, by what a Sentinel says about it."""
    return f"{facts['ip']}:{facts['port']}"


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


async def ask_sentinel(endpoint: Endpoint, node: Address, word: str) -> Any:
    """Return a Sentinel's reply, None if it does not answer or refuses."""
    reply = await query_sentinel(endpoint, node, word)
    return None if isinstance(reply, Exception) else reply


async def query_sentinel(endpoint: Endpoint, node: Address, word: str, *more: str) -> Any:
    """Return a Sentinel's reply, or the exception that took its place."""
    (reply,) = await _query_each(endpoint, node, (word, *more))
    return reply


async def _query_each(endpoint: Endpoint, node: Address, *questions: tuple[str, ...]) -> list[Any]:
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
