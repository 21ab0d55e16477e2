"""Before a flusher flushes: archive, Redis and settings must agree who has given out what.

same server as in the record           go on
one standalone server, restarted,      go on: nothing it answered for is gone, so the epoch
appendfsync always all its life        stays and lanes may repeat what was under way
nothing in Redis, nothing archived     a fresh install: seq 0
anything else                          jump: a tail may be lost, so no id up to
cursor + bound may ever be given again
the archive is behind what Redis says  stop: usages may be gone, a person decides
"""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, NamedTuple

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import LossSuspected, PartitionMismatch
from busyapi.flusher.intake import drain
from busyapi.ids import Seq
from busyapi.stream.durability import Server
from busyapi.stream.partition import Found, Partition
from busyapi.stream.state import State


class Install(NamedTuple):
    """What was fixed at install, and the tier."""

    partition: int
    partitions: int
    bound: int
    tier: str


async def seed(partition: Partition, writer: PartitionWriter, install: Install) -> str:
    """Make the partition fit to be committed to on this server; say what was done.

    Raises:
        LossSuspected: the archive lacks what Redis or its own files speak of.
        PartitionMismatch: Redis was installed with another number of partitions.
        TooWeak: the server does not hold the tier.
        RedisAway, LeaseLost: to be tried again.
    """
    found = await partition.find()
    _compare(found.state, writer, install)
    record = _record(found, writer, install)
    if found.empty and writer.cursor == 0:
        await partition.seed(Seq(0), record | _mint("fresh install"), seq=Seq(0))
        return "fresh install"
    why = _why_jump(found, writer, partition.standalone)
    if not why:
        await partition.seed(writer.cursor, record)
        return "same history"
    await _jump(partition, writer, install, why)
    return why


def _compare(state: State, writer: PartitionWriter, install: Install) -> None:
    if state.partitions not in {None, install.partitions}:
        raise PartitionMismatch(
            f"Redis was installed with {state.partitions} partitions, BUSYAPI_PARTITIONS says"
            f" {install.partitions}: the number is fixed at install"
        )
    known = max(state.archived, writer.highest)
    if known > writer.cursor:
        raise LossSuspected(
            f"usages up to seq {known} were archived, but this archive ends at seq"
            f" {writer.cursor}: an empty, wrong, older or damaged volume. Mount the right one; or,"
            " to give up what is missing, type: busyapi archive accept-loss --partition"
            f" {install.partition} --through {known} --reason '…'"
        )


def _why_jump(found: Found, writer: PartitionWriter, standalone: bool) -> str:  # noqa: FBT001
    state, server = found.state, found.server
    if state.seq is None:
        return "Redis has lost its data"
    if not state.epoch:
        return "a process saw that Redis went back"
    if state.seq < writer.cursor:
        return "Redis is older than the archive"
    if state.run_id == server.run_id:
        return ""
    if not standalone:
        return "another server, after a failover"
    if server.promoted:
        return "another server, a promoted replica"
    if state.doubt:
        return f"a restart after doubt: {state.doubt}"
    return ""


def doubt(server: Server, tier: str) -> str:
    """Tell why a restart of this server would have to be taken for a loss, "" if it need not."""
    if tier == "memory":
        return "tier memory"
    if server.replicas:
        # One of them may be promoted, restarted, and then look like this server restarted.
        return "it has had replicas"
    return ""


def _record(found: Found, writer: PartitionWriter, install: Install) -> dict[str, Any]:
    return {
        "run_id": found.server.run_id,
        "partitions": install.partitions,
        # The archive knows this bound by now: a jump after it is wide enough.
        "bound": install.bound,
        "skipped": writer.skipped,
        "doubt": found.state.doubt or doubt(found.server, install.tier),
    }


def _mint(why: str) -> dict[str, Any]:
    minted = datetime.now(UTC).isoformat(timespec="seconds")
    return {"epoch": token_hex(8), "minted_at": minted, "why": why}


async def _jump(partition: Partition, writer: PartitionWriter, install: Install, why: str) -> None:
    # Commits stop first: what is in the stream then is all that this server will have of the
    # old history. If we die after the gap record, the next start jumps once more, which costs
    # ids and nothing else.
    await partition.unseed()
    await drain(partition, writer)
    found = await partition.find()
    landing = Seq(max(found.state.seq or 0, writer.cursor + writer.bound) + 1)
    await asyncio.to_thread(writer.gap, landing, why)
    record = _record(found, writer, install) | {"doubt": doubt(found.server, install.tier)}
    await partition.seed(landing, record | _mint(why), seq=landing)
