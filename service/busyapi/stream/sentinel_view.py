"""Which servers the Sentinels know, may promote, and are promoting."""

import asyncio
from typing import Any, NamedTuple

from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.replica_server import parse_pairs
from busyapi.stream.sentinel_queries import (
    address_of,
    flags_of,
    list_promotable,
    query_each,
    query_sentinel,
)

_PROMOTING = {"send_slaveof_noone", "wait_promotion"}
_UNKNOWN = "?"


class NamedPrimary(NamedTuple):
    """What one Sentinel says about the primary."""

    address: str
    epoch: int
    """The number of the failover that made it the primary."""
    promoting: str = ""
    """The server that it is promoting, "" if none; it sees the success up to a second later."""


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
            (
                named.epoch
                for named in self.primaries
                if address in {named.address, named.promoting}
            ),
            default=-1,
        )
        for named in self.primaries:
            if named.promoting == address:
                continue
            if named.promoting:
                return "a Sentinel is promoting another server"
            if named.address != address and named.epoch > epoch:
                return f"a Sentinel names {named.address} as the primary, after {address}"
        return ""

    def has_promoted(self, address: str) -> bool:
        """Return whether the Sentinels have finished the failover to a primary."""
        is_under_way = any(named.promoting for named in self.primaries)
        return not is_under_way and not self.find_replacement(address)


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
        list_promotable(replicas),
        obstacle,
        _find_idle(endpoint, views),
        tuple(_parse_primary(*view) for view in answered if view[2]),
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
    replies = await query_each(endpoint, node, *((word,) for word in words))
    return None if any(isinstance(reply, Exception) for reply in replies) else replies


def _parse_primary(
    replicas: list[list[bytes]], master: list[bytes], address: list[bytes]
) -> NamedPrimary:
    facts = parse_pairs(master)
    host, port = address
    promoting = ""
    if facts.get("failover-state") in _PROMOTING:
        listed = map(parse_pairs, replicas)
        chosen = (address_of(replica) for replica in listed if "promoted" in flags_of(replica))
        promoting = next(chosen, _UNKNOWN)  # it was chosen after the replicas were listed
    return NamedPrimary(f"{host.decode()}:{int(port)}", int(facts["config-epoch"]), promoting)


def _find_idle(endpoint: Endpoint, views: list[list[Any] | None]) -> frozenset[str]:
    idle: list[set[str]] = []
    for view in views:
        if view is None:
            return frozenset()
        replicas, primary, _ = view
        facts = parse_pairs(primary)
        knows_others = int(facts["num-other-sentinels"]) == len(endpoint.hosts) - 1
        if not knows_others or {"failover_in_progress", "o_down"} & flags_of(facts):
            return frozenset()
        listed = map(parse_pairs, replicas)
        idle.append({address_of(other) for other in listed if other["slave-priority"] == "0"})
    return frozenset(set.intersection(*idle)) if idle else frozenset()
