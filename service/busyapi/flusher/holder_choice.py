"""Chooses the server that a failover promotes."""

from typing import NamedTuple

from busyapi.archive.holders import Holders
from busyapi.flusher.holder_check import ArchiveEvidence, find_doubt, find_missing_data
from busyapi.stream.replica_server import ReplicaServer


class Choice(NamedTuple):
    """A server to promote, or why there is none."""

    server: ReplicaServer | None
    reason: str = ""


def choose_holder(
    servers: list[ReplicaServer],
    holders: Holders,
    archive: ArchiveEvidence,
    *,
    may_wait: bool,
    is_failing_over: bool = False,
) -> Choice:
    """Return the holder to promote: one chosen before, else the one with most data.

    Every holder has all acknowledged usages. More data are usages whose answer was lost. But a
    process that has restarted may have lost its volume: one that has not is preferred, and the
    others are waited for. So is one chosen before while Sentinels fail over: they close all
    connections to the server that they promote.
    """
    if not servers:
        return Choice(None, "no other server holds every acknowledged usage")
    if any(server.is_primary and server.address in holders.raised for server in servers):
        return Choice(None)  # it is promoted, and the Sentinels do not say so yet
    unreached = {server.address for server in servers if not server.was_reached}
    if is_failing_over and (promoted := unreached & holders.raised):
        return Choice(None, f"the Sentinels may be promoting {', '.join(sorted(promoted))}")
    candidates, reasons = [], []
    for server in servers:
        if reason := _find_obstacle(server, holders, archive):
            reasons.append(reason)
        else:
            candidates.append(server)
    if not candidates:
        return Choice(None, "; ".join(reasons))
    best = max(candidates, key=lambda server: _rank(server, holders))
    if may_wait and reasons and (doubt := find_doubt(best.data, holders)):
        waiting = f"{best.address} {doubt}: the flusher waits for the other holders"
        return Choice(None, "; ".join([waiting, *reasons]))
    return Choice(best)


def _find_obstacle(server: ReplicaServer, holders: Holders, archive: ArchiveEvidence) -> str:
    if not server.was_reached:
        return server.problem
    if server.is_primary:
        # It restarted as a primary, by its own configuration. Sentinels make it a replica later.
        return f"{server.address} is a primary that the flusher has not chosen"
    if missing := find_missing_data(server.data, holders, archive):
        return f"{server.address} may lack acknowledged usages: {missing}"
    return ""


def _rank(server: ReplicaServer, holders: Holders) -> tuple[bool, bool, int, int]:
    # Offsets of servers that have restarted cannot be compared: each begins a new count.
    return (
        not find_doubt(server.data, holders),
        server.address in holders.raised,
        server.data.seq or 0,
        server.offset,
    )
