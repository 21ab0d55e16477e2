"""Before a flusher flushes: archive, Redis and settings must agree who has given out what.

    same server as in the record            go on
    one standalone server, restarted,       go on: nothing it answered for is gone, so the epoch
      appendfsync always all its life         stays and lanes may repeat what was under way
    nothing in Redis, nothing archived,     a fresh install: seq 0
      no id ever given out
    anything else                           jump: a tail may be lost, so no id up to
                                              cursor + bound may ever be given again
    another archive, or one that is         stop: usages may be gone, a person decides
      behind what Redis says

The rules behind the table are in ARCHITECTURE.md. `compare` says what is wrong.
"""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import TooWeak
from busyapi.flusher.compare import Install, compare_archive, compare_install, require_original
from busyapi.flusher.intake import drain
from busyapi.flusher.keys import KeyKeeper
from busyapi.ids import Seq
from busyapi.stream.durability import Server
from busyapi.stream.partition import Found, Partition

LANES_LOOK_SECONDS = 1.5
"""Longer than a lane ever pauses between two looks at a server."""


async def seed(
    partition: Partition, writer: PartitionWriter, install: Install, keys: KeyKeeper
) -> str:
    """Make the partition fit to be committed to on this server; say what was done.

    Raises:
        LossSuspected: the archive lacks what Redis or its own files speak of, or is a copy.
        PartitionMismatch: Redis was installed with another number of partitions.
        TooWeak: the server does not hold the tier.
        RedisAway, LeaseLost, NotSeeded: to be tried again.
    """
    found = await partition.find()
    compare_install(found.state, writer.identity, install, partition.keys.prefix)
    if writer.restored:
        # First: what it asks for settles what the next one would ask for as well.
        require_original(found, writer, install)
    compare_archive(found.state, writer, install)
    if writer.restored:
        await partition.while_renewing(asyncio.to_thread(writer.rehome))
    await keys.open(partition, writer)
    keys.limit(found.server.memory_max_bytes)
    if found.empty and writer.cursor == 0 and not writer.seeded:
        _need_tier(found.server)
        # Marked first: from now on an empty Redis has lost something.
        await asyncio.to_thread(writer.mark, seeded=True)
        await partition.known.forget()
        record = _record(found, writer, install, partition.installation) | _mint("fresh install")
        await _write(partition, writer, record, seq=Seq(0))
        return "fresh install"
    why = _why_jump(found, writer, partition.standalone)
    if not why and found.state.run_id != found.server.run_id:
        if found.server.weak:
            # It may hold the only copy: archive it, although it is not vouched for.
            await drain(partition, writer, keys)
        _need_tier(found.server)
        # A lane that was given more than this server has takes its epoch away. Each gets the
        # time to look before a process that knows less may commit here.
        await partition.while_renewing(asyncio.sleep(LANES_LOOK_SECONDS))
        found = await partition.find()
        why = _why_jump(found, writer, partition.standalone)
    if not why:
        record = _record(found, writer, install, partition.installation)
        if (await partition.known.turn()).given != found.state.epoch:
            # A flusher that knows nothing of keys prepared this server.
            await keys.restore(partition, writer)
            record["keys_epoch"] = found.state.epoch
        await _write(partition, writer, record)
        return "same history"
    await _jump(partition, writer, install, why, keys)
    return why


def _need_tier(server: Server) -> None:
    # A weak server is still archived from: its usages are the ones in danger. But no usage more
    # is committed to it than it was vouched for.
    if server.weak:
        raise TooWeak(server.weak)


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
    if _process(state.run_id) == _process(server.run_id) and not server.promoted:
        # It began a replication history of its own, as at its first replica. But a server that has
        # had replicas may have taken over the data of one, and Redis forgets that promotion
        # (`master_replid2`) when `repl-backlog-ttl` ends.
        return f"another replication history after doubt: {state.doubt}" if state.doubt else ""
    if not standalone:
        return "another server, after a failover"
    if server.promoted:
        return "another server, a promoted replica"
    if state.doubt:
        return f"a restart after doubt: {state.doubt}"
    return ""


def _process(run_id: str) -> str:
    return run_id.partition("-")[0]


def doubt(server: Server, tier: str) -> str:
    """Tell why a restart of this server would have to be taken for a loss, "" if it need not."""
    if tier == "memory":
        return "tier memory"
    if server.replicas:
        # One of them may be promoted, restarted, and then look like this server restarted.
        return "it has had replicas"
    return ""


def _record(
    found: Found, writer: PartitionWriter, install: Install, installation: str
) -> dict[str, Any]:
    return {
        "installation": installation,
        "run_id": found.server.run_id,
        "partitions": install.partitions,
        "archive_id": writer.archive_id,
        # The archive knows this bound by now: a jump after it is wide enough.
        "bound": install.bound,
        "skipped": writer.skipped,
        "doubt": found.state.doubt or doubt(found.server, install.tier),
    }


def _mint(why: str) -> dict[str, Any]:
    minted = datetime.now(UTC).isoformat(timespec="seconds")
    epoch = token_hex(8)
    return {"epoch": epoch, "keys_epoch": epoch, "minted_at": minted, "why": why}


async def _write(
    partition: Partition, writer: PartitionWriter, record: dict[str, Any], seq: Seq | None = None
) -> None:
    if not writer.prefix:
        # First, so that no later start looks for these usages under other keys.
        mark = asyncio.to_thread(writer.mark, prefix=partition.keys.prefix)
        await partition.while_renewing(mark)
    await partition.seed(writer.cursor, record, seq=seq)


async def _jump(
    partition: Partition, writer: PartitionWriter, install: Install, why: str, keys: KeyKeeper
) -> None:
    # Commits stop first: what is in the stream then is all that this server will have of the
    # old history. If we die after the gap record, the next start jumps once more, which costs
    # ids and nothing else.
    await partition.unseed()
    await drain(partition, writer, keys)
    # If it was another's replica meanwhile, what it took over from that one is not drained yet.
    await partition.inspect()
    # Draining needs no tier: a promoted server may hold the only copy. Committing does.
    found = await partition.find()
    _need_tier(found.server)
    landing = Seq(max(found.state.seq or 0, writer.cursor + writer.bound) + 1)
    await partition.while_renewing(asyncio.to_thread(writer.gap, landing, why))
    # Behind the gap, which tells the usages that are lost; before the epoch, under which a repeat
    # may come.
    await keys.restore(partition, writer)
    record = _record(found, writer, install, partition.installation)
    record |= {"doubt": doubt(found.server, install.tier)} | _mint(why)
    await _write(partition, writer, record, seq=landing)
