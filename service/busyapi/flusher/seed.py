"""Seeds a partition before its flusher flushes: archive, Redis and settings must agree on the ids.

    the record names this server            continue
    one standalone server that restarted,   continue: every acknowledged usage is still there, so
      appendfsync always since it started     the epoch stays, and committers may retry batches
    Redis and archive are empty,            a fresh install: seq 0
      and no id was ever issued
    another archive, or one that is         halt: usages may be lost, and an operator decides
      behind the record in Redis
    anything else                           jump: a tail may be lost, so no id up to
                                              cursor + bound may ever be issued again

docs/explanation/ids-and-epochs.md explains the table. `ownership` makes the checks that halt.
"""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull, DurabilityNotMet, NotSeeded
from busyapi.failpoints import failpoint
from busyapi.flusher.buffer import drain_stream
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import (
    PartitionConfig,
    check_archive_complete,
    check_config,
    check_original_known,
)
from busyapi.flusher.strides import settle_strides, widen_stride
from busyapi.ids import Seq
from busyapi.stream.durability import ServerInfo
from busyapi.stream.entry import MAX_VERSION
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import continue_epoch, record_strides

COMMITTER_CHECK_SECONDS = 1.5
"""Longer than a committer ever waits between two checks of a server."""


async def seed_partition(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
) -> str:
    """Prepare the partition for commits on this server; return what was done and why.

    Raises:
        LossSuspected: the archive is missing usages that Redis or its own files refer to, or it is
            a copy.
        PartitionMismatch: as `check_config`.
        DurabilityNotMet: the server does not meet the tier.
        RedisUnavailable, LeaseLost, NotSeeded: try again.
    """
    snapshot = await partition.read_snapshot()
    await _check_archive(partition, writer, config, snapshot)
    await settle_strides(partition, writer, config, snapshot.state)
    await idempotency_keys.load(partition, writer)
    idempotency_keys.update_max_keys(snapshot.server.memory_max_bytes)
    # A partition that was added begins behind a gap.
    before_start = writer.cursor in {0, writer.identity.strides.start - 1}
    if snapshot.is_empty and before_start and not writer.identity.is_seeded:
        await _seed_fresh_install(partition, writer, config, snapshot)
        return "fresh install"
    if is_paused(snapshot, writer):  # a flusher died while it widened the stride
        paused = snapshot.state.paused
        await _end_pause(partition, writer, config, idempotency_keys, paused)
        return "same history"
    why = _jump_reason(snapshot, writer, partition.is_standalone)
    if not why and snapshot.state.server_id != snapshot.server.server_id:
        if snapshot.server.durability_error:
            # The server may have the only copy: archive it, but do not allow commits.
            await drain_stream(partition, writer, idempotency_keys)
        _require_tier(snapshot.server)
        # A committer that received a higher seq than this server has revokes the epoch. Each
        # committer gets the time to check before a process that received fewer may commit here.
        await partition.await_with_lease(asyncio.sleep(COMMITTER_CHECK_SECONDS))
        snapshot = await partition.read_snapshot()
        why = _jump_reason(snapshot, writer, partition.is_standalone)
    if why:
        await _jump_ids(partition, writer, config, why, idempotency_keys)
        return why
    record = _make_record(snapshot, writer, config, partition.installation)
    if (await partition.idempotency.read_rotation()).restored_epoch != snapshot.state.epoch:
        # A flusher of a release without Idempotency-Keys seeded this server.
        await idempotency_keys.restore(partition, writer)
        record["keys_epoch"] = snapshot.state.epoch
    await _write_record(partition, writer, record)
    return "same history"


async def _check_archive(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    snapshot: PartitionSnapshot,
) -> None:
    check_config(snapshot.state, writer.identity, config, partition.key_names.prefix)
    if writer.identity.is_copy:
        # First: the fix that this error names also fixes the next one.
        check_original_known(snapshot, writer, config)
    check_archive_complete(snapshot.state, writer, config)
    if writer.identity.is_copy:
        await partition.await_with_lease(asyncio.to_thread(writer.adopt_copy))


async def _seed_fresh_install(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    snapshot: PartitionSnapshot,
) -> None:
    _require_tier(snapshot.server)
    before_start = Seq(writer.identity.strides.start - 1)
    failpoint("flusher-before-begin")
    if before_start > writer.cursor:
        await asyncio.to_thread(writer.record_gap, before_start, "the partition begins after them")
    # This precedes the seed: from now on an empty Redis has lost data.
    failpoint("flusher-after-begin")
    await asyncio.to_thread(writer.update_identity, is_seeded=True)
    await partition.idempotency.delete_all()
    record = _make_record(snapshot, writer, config, partition.installation)
    await _write_record(partition, writer, record | _mint_epoch("fresh install"), seq=before_start)


def _require_tier(server: ServerInfo) -> None:
    # The flusher archives the usages of a server below its tier, which are in danger, but allows no
    # new commits.
    if server.durability_error:
        raise DurabilityNotMet(server.durability_error)


def _jump_reason(snapshot: PartitionSnapshot, writer: PartitionWriter, standalone: bool) -> str:  # noqa: FBT001
    state, server = snapshot.state, snapshot.server
    if state.seq is None:
        return "Redis has lost its data"
    if not state.epoch:
        return "a process saw that Redis went back"
    if state.seq < writer.cursor or state.strides != writer.identity.strides:
        return "Redis is older than the archive"
    if state.server_id == server.server_id:
        return ""
    if _run_id_of(state.server_id) == _run_id_of(server.server_id) and not server.was_promoted:
        # The process began a new replication history, as it does for its first replica. But a
        # server that has had replicas may have taken over the data of one, and Redis forgets that
        # promotion (`master_replid2`) after `repl-backlog-ttl`.
        return f"another replication history after doubt: {state.doubt}" if state.doubt else ""
    if not standalone:
        return "another server, after a failover"
    if server.was_promoted:
        return "another server, a promoted replica"
    if state.doubt:
        return f"a restart after doubt: {state.doubt}"
    return ""


def _run_id_of(server_id: str) -> str:
    return server_id.partition("-")[0]


def doubt_reason(server: ServerInfo, tier: str) -> str:
    """Return why a restart of this server must count as a loss, "" if it need not."""
    if tier == "memory":
        return "tier memory"
    if server.replicas:
        # A replica that is promoted and restarted would look like this server after a restart.
        return "it has had replicas"
    if server.trust:
        # If the trust was wrong, a restart has lost usages, and their ids must not come again.
        return "its durability is trusted, not checked"
    return ""


def _make_record(
    snapshot: PartitionSnapshot, writer: PartitionWriter, config: PartitionConfig, installation: str
) -> dict[str, Any]:
    return {
        "installation": installation,
        "run_id": snapshot.server.server_id,
        **record_strides(writer.identity.strides),
        "paused": "",
        "archive_id": writer.identity.archive_id,
        # The archive has recorded this bound already, so that a later jump is wide enough.
        "bound": config.bound,
        "entries": MAX_VERSION,
        "skipped": writer.stats.skipped_seqs,
        "doubt": snapshot.state.doubt or doubt_reason(snapshot.server, config.tier),
    }


def _mint_epoch(why: str, epoch: str = "") -> dict[str, Any]:
    minted = datetime.now(UTC).isoformat(timespec="seconds")
    epoch = epoch or token_hex(8)
    return {"epoch": epoch, "keys_epoch": epoch, "minted_at": minted, "why": why}


async def _write_record(
    partition: OwnedPartition,
    writer: PartitionWriter,
    record: dict[str, Any],
    seq: Seq | None = None,
) -> None:
    if not writer.identity.prefix:
        # This precedes the seed, so that a later start does not use other keys.
        update = asyncio.to_thread(writer.update_identity, prefix=partition.key_names.prefix)
        await partition.await_with_lease(update)
    await partition.seed(writer.cursor, record, seq=seq)


async def _jump_ids(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    why: str,
    idempotency_keys: IdempotencyKeeper,
) -> None:
    # Commits stop first: the stream then has everything that this server will ever have of the
    # old history. If the process dies after the gap record, the next start jumps again, which
    # costs only ids.
    await partition.revoke_epoch()
    await drain_stream(partition, writer, idempotency_keys)
    # If the server was a replica in between, data that it took over is not drained yet.
    await partition.inspect()
    # Draining needs no tier, because a promoted server may have the only copy. Commits do.
    snapshot = await partition.read_snapshot()
    _require_tier(snapshot.server)
    start = writer.identity.strides.start
    bound = writer.identity.bound
    next_seq = Seq(max(snapshot.state.seq or 0, writer.cursor + bound, start - 1) + 1)
    await partition.await_with_lease(asyncio.to_thread(writer.record_gap, next_seq, why))
    await widen_stride(partition, writer, config, Seq(next_seq + 1))
    # After the gap record, which shows the lost usages, and before the epoch, under which retries
    # may arrive.
    await idempotency_keys.restore(partition, writer)
    record = _make_record(snapshot, writer, config, partition.installation)
    record |= {"doubt": doubt_reason(snapshot.server, config.tier)} | _mint_epoch(why)
    await _write_record(partition, writer, record, seq=next_seq)


async def reseed_wider(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
) -> None:
    """Widen the stride of a seeded partition. Its seqs continue without a jump.

    Raises:
        NotSeeded, RedisUnavailable, LeaseLost, ArchiveTakenOver, DurabilityNotMet: seed again.
        ArchiveFull: the stride is as it was.
    """
    epoch = await partition.revoke_epoch(pause=True)
    if not epoch:
        raise NotSeeded("a process saw that Redis went back")
    failpoint("flusher-after-pause")
    await _end_pause(partition, writer, config, idempotency_keys, epoch)


async def _end_pause(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
    paused: str,
) -> None:
    """Widen the stride, if it is not wide enough yet, and continue a paused epoch."""
    try:
        await drain_stream(partition, writer, idempotency_keys)
        snapshot = await partition.read_snapshot()
        _require_tier(snapshot.server)
        if not is_paused(snapshot, writer):
            raise NotSeeded("the server has changed")
        await widen_stride(partition, writer, config, Seq(writer.cursor + 1))
    except ArchiveFull:
        # Partition.json is as it was. Commits continue until the bound.
        epoch = _mint_epoch("full volume", continue_epoch(paused))
        await partition.seed(writer.cursor, epoch | {"paused": ""})
        raise
    failpoint("flusher-after-widen")
    record = _make_record(snapshot, writer, config, partition.installation)
    record |= _mint_epoch("more partitions", continue_epoch(paused))
    await _write_record(partition, writer, record)


def is_paused(snapshot: PartitionSnapshot, writer: PartitionWriter) -> bool:
    """Return whether this server is as a flusher left it that was about to widen the stride."""
    state = snapshot.state
    return (
        bool(state.paused)
        and not state.epoch
        and state.server_id == snapshot.server.server_id
        and state.seq is not None
        and state.seq >= writer.cursor
    )
