"""Before a flusher flushes: archive, Redis and settings must agree who has given out what.

    same server as in the record            go on
    one standalone server, restarted,       go on: nothing it answered for is gone, so the epoch
      appendfsync always all its life         stays and committers may repeat what was under way
    nothing in Redis, nothing archived,     a fresh install: seq 0
      no id ever given out
    anything else                           jump: a tail may be lost, so no id up to
                                              cursor + bound may ever be given again
    another archive, or one that is         stop: usages may be gone, a person decides
      behind what Redis says

docs/explanation/ids-and-epochs.md explains the table. `ownership` says what is wrong.
"""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import DurabilityNotMet
from busyapi.flusher.buffer import drain_stream
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import (
    PartitionConfig,
    check_archive_complete,
    check_config,
    check_original_known,
)
from busyapi.ids import Seq
from busyapi.stream.durability import ServerInfo
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot

COMMITTER_CHECK_SECONDS = 1.5
"""Longer than a committer ever pauses between two looks at a server."""


async def seed_partition(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    keys: IdempotencyKeeper,
) -> str:
    """Make the partition fit to be committed to on this server; say what was done.

    Raises:
        LossSuspected: the archive lacks what Redis or its own files speak of, or is a copy.
        PartitionMismatch: Redis was installed with another number of partitions.
        DurabilityNotMet: the server does not hold the tier.
        RedisUnavailable, LeaseLost, NotSeeded: to be tried again.
    """
    found = await partition.read_snapshot()
    check_config(found.state, writer.identity, config, partition.keys.prefix)
    if writer.identity.is_copy:
        # First: what it asks for settles what the next one would ask for as well.
        check_original_known(found, writer, config)
    check_archive_complete(found.state, writer, config)
    if writer.identity.is_copy:
        await partition.await_with_lease(asyncio.to_thread(writer.adopt_copy))
    await keys.load(partition, writer)
    keys.update_max_keys(found.server.memory_max_bytes)
    if found.is_empty and writer.cursor == 0 and not writer.identity.is_seeded:
        _require_tier(found.server)
        # Marked first: from now on an empty Redis has lost something.
        await asyncio.to_thread(writer.mark_identity, seeded=True)
        await partition.idempotency.delete_all()
        record = _make_record(found, writer, config, partition.installation) | _mint_epoch(
            "fresh install"
        )
        await _write_record(partition, writer, record, seq=Seq(0))
        return "fresh install"
    why = _jump_reason(found, writer, partition.is_standalone)
    if not why and found.state.run_id != found.server.run_id:
        if found.server.durability_error:
            # It may hold the only copy: archive it, although it is not vouched for.
            await drain_stream(partition, writer, keys)
        _require_tier(found.server)
        # A committer that was given more than this server has takes its epoch away. Each gets the
        # time to look before a process that knows less may commit here.
        await partition.await_with_lease(asyncio.sleep(COMMITTER_CHECK_SECONDS))
        found = await partition.read_snapshot()
        why = _jump_reason(found, writer, partition.is_standalone)
    if not why:
        record = _make_record(found, writer, config, partition.installation)
        if (await partition.idempotency.read_rotation()).restored_epoch != found.state.epoch:
            # A flusher that knows nothing of keys prepared this server.
            await keys.restore(partition, writer)
            record["keys_epoch"] = found.state.epoch
        await _write_record(partition, writer, record)
        return "same history"
    await _jump_ids(partition, writer, config, why, keys)
    return why


def _require_tier(server: ServerInfo) -> None:
    # A weak server is still archived from: its usages are the ones in danger. But no usage more
    # is committed to it than it was vouched for.
    if server.durability_error:
        raise DurabilityNotMet(server.durability_error)


def _jump_reason(snapshot: PartitionSnapshot, writer: PartitionWriter, standalone: bool) -> str:  # noqa: FBT001
    state, server = snapshot.state, snapshot.server
    if state.seq is None:
        return "Redis has lost its data"
    if not state.epoch:
        return "a process saw that Redis went back"
    if state.seq < writer.cursor:
        return "Redis is older than the archive"
    if state.run_id == server.run_id:
        return ""
    if _process_id(state.run_id) == _process_id(server.run_id) and not server.was_promoted:
        # It began a replication history of its own, as at its first replica. But a server that has
        # had replicas may have taken over the data of one, and Redis forgets that promotion
        # (`master_replid2`) when `repl-backlog-ttl` ends.
        return f"another replication history after doubt: {state.doubt}" if state.doubt else ""
    if not standalone:
        return "another server, after a failover"
    if server.was_promoted:
        return "another server, a promoted replica"
    if state.doubt:
        return f"a restart after doubt: {state.doubt}"
    return ""


def _process_id(run_id: str) -> str:
    return run_id.partition("-")[0]


def doubt_reason(server: ServerInfo, tier: str) -> str:
    """Tell why a restart of this server would have to be taken for a loss, "" if it need not."""
    if tier == "memory":
        return "tier memory"
    if server.replicas:
        # One of them may be promoted, restarted, and then look like this server restarted.
        return "it has had replicas"
    return ""


def _make_record(
    snapshot: PartitionSnapshot, writer: PartitionWriter, config: PartitionConfig, installation: str
) -> dict[str, Any]:
    return {
        "installation": installation,
        "run_id": snapshot.server.run_id,
        "partitions": config.partitions,
        "archive_id": writer.identity.archive_id,
        # The archive knows this bound by now: a jump after it is wide enough.
        "bound": config.bound,
        "skipped": writer.stats.skipped_seqs,
        "doubt": snapshot.state.doubt or doubt_reason(snapshot.server, config.tier),
    }


def _mint_epoch(why: str) -> dict[str, Any]:
    minted = datetime.now(UTC).isoformat(timespec="seconds")
    epoch = token_hex(8)
    return {"epoch": epoch, "keys_epoch": epoch, "minted_at": minted, "why": why}


async def _write_record(
    partition: OwnedPartition,
    writer: PartitionWriter,
    record: dict[str, Any],
    seq: Seq | None = None,
) -> None:
    if not writer.identity.prefix:
        # First, so that no later start looks for these usages under other keys.
        mark = asyncio.to_thread(writer.mark_identity, prefix=partition.keys.prefix)
        await partition.await_with_lease(mark)
    await partition.seed(writer.cursor, record, seq=seq)


async def _jump_ids(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    why: str,
    keys: IdempotencyKeeper,
) -> None:
    # Commits stop first: what is in the stream then is all that this server will have of the
    # old history. If we die after the gap record, the next start jumps once more, which costs
    # ids and nothing else.
    await partition.revoke_epoch()
    await drain_stream(partition, writer, keys)
    # If it was another's replica meanwhile, what it took over from that one is not drained yet.
    await partition.inspect()
    # Draining needs no tier: a promoted server may hold the only copy. Committing does.
    found = await partition.read_snapshot()
    _require_tier(found.server)
    landing = Seq(max(found.state.seq or 0, writer.cursor + writer.identity.bound) + 1)
    await partition.await_with_lease(asyncio.to_thread(writer.record_gap, landing, why))
    # Behind the gap, which tells the usages that are lost; before the epoch, under which a repeat
    # may come.
    await keys.restore(partition, writer)
    record = _make_record(found, writer, config, partition.installation)
    record |= {"doubt": doubt_reason(found.server, config.tier)} | _mint_epoch(why)
    await _write_record(partition, writer, record, seq=landing)
