"""Seeds a partition before its flusher flushes: archive, Redis and settings must agree on the ids.

    the record names this server            continue
    one standalone server that restarted,   continue: every acknowledged usage is still there, so
      appendfsync always since it started     the epoch stays, and committers may retry batches
    Redis and archive are empty,            a fresh install: seq 0
      and no id was ever issued
    a server that confirmed every commit    continue: no device has an id that it lacks. If the
      of the server in the record             archive has usages, strides or keys of usages that it
                                              lacks, a new epoch, so that no committer retries
                                              their batches. Ids of keys without usages stay unused
    another archive, or one that is         halt: usages may be lost, and an operator decides
      behind the record in Redis
    anything else                           jump: a tail may be lost, so no id up to
                                              cursor + bound may ever be issued again

docs/explanation/ids-and-epochs.md explains the table. `ownership` makes the checks that halt.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull
from busyapi.failpoints import failpoint
from busyapi.flusher.buffer import drain_stream
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import (
    PartitionConfig,
    check_archive_complete,
    check_config,
    check_original_known,
    check_own_server,
)
from busyapi.flusher.pause import end_pause, is_paused
from busyapi.flusher.record import (
    doubt_reason,
    make_record,
    mint_epoch,
    require_tier,
    write_record,
)
from busyapi.flusher.strides import settle_strides, widen_stride
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import PartitionState

FRESH, SAME = "fresh install", "same history"
REPLACED = "a server that confirmed every commit"
WITHOUT_JUMP = frozenset({FRESH, SAME, REPLACED})
"""The results of `seed_partition` that skip no id."""
COMMITTER_CHECK_SECONDS = 1.5
"""Longer than a committer ever waits between two checks of a server."""


async def seed_partition(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
    predecessors: Collection[str] = (),
) -> str:
    """Prepare the partition for commits on this server; return what was done and why.

    `predecessors` are the servers whose acknowledged usages this one has, all of them.

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
        return FRESH
    if is_paused(snapshot, writer):  # a flusher died while it widened the stride
        paused = snapshot.state.paused
        await end_pause(partition, writer, config, idempotency_keys, paused)
        return SAME
    state = snapshot.state
    has_epoch = bool(state.epoch or state.paused)
    has_all = state.server_id in predecessors and has_epoch and state.seq is not None
    if has_all:
        # A key that the archive has may name a usage that neither has. If another usage got that
        # id, the key would answer for it.
        named = await partition.await_with_lease(idempotency_keys.find_last_seq())
        if (state.seq or 0) < named or not _continues_archive(state, writer):
            await _start_epoch(partition, writer, config, REPLACED, idempotency_keys, issued=named)
            return REPLACED
    why = "" if has_all else _jump_reason(snapshot, writer, partition.is_standalone)
    if not why and snapshot.state.server_id != snapshot.server.server_id:
        if snapshot.server.durability_error:
            # The server may have the only copy: archive it, but do not allow commits.
            await drain_stream(partition, writer, idempotency_keys)
        require_tier(snapshot.server)
    if not why and not has_all and snapshot.state.server_id != snapshot.server.server_id:
        # A committer that received a higher seq than this server has revokes the epoch. Each
        # committer gets the time to check before a process that received fewer may commit here.
        await partition.await_with_lease(asyncio.sleep(COMMITTER_CHECK_SECONDS))
        snapshot = await partition.read_snapshot()
        why = _jump_reason(snapshot, writer, partition.is_standalone)
    if why:
        await _start_epoch(partition, writer, config, why, idempotency_keys)
        return why
    record = make_record(snapshot, writer, config, partition.endpoint)
    if (await partition.idempotency.read_rotation()).restored_epoch != snapshot.state.epoch:
        # A flusher of a release without Idempotency-Keys seeded this server.
        await idempotency_keys.restore(partition, writer)
        record["keys_epoch"] = snapshot.state.epoch
    await write_record(partition, writer, record)
    return REPLACED if has_all else SAME


def _continues_archive(state: PartitionState, writer: PartitionWriter) -> bool:
    """Return whether commits may continue under the epoch of the record."""
    return (
        bool(state.epoch)
        and state.seq is not None
        and state.seq >= writer.cursor
        # A flusher may have widened the stride on disk, and died before the record had it.
        and state.strides == writer.identity.strides
    )


async def _check_archive(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    snapshot: PartitionSnapshot,
) -> None:
    check_config(snapshot.state, writer.identity, config, partition.endpoint)
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
    require_tier(snapshot.server)
    # After those that it waits for: it is then not the first partition on a server named twice.
    await partition.await_with_lease(check_own_server(partition, config))
    before_start = Seq(writer.identity.strides.start - 1)
    failpoint("flusher-before-begin")
    if before_start > writer.cursor:
        await asyncio.to_thread(writer.record_gap, before_start, "the partition begins after them")
    # This precedes the seed: from now on an empty Redis has lost data.
    failpoint("flusher-after-begin")
    await asyncio.to_thread(writer.update_identity, is_seeded=True)
    await partition.idempotency.delete_all()
    record = make_record(snapshot, writer, config, partition.endpoint)
    await write_record(partition, writer, record | mint_epoch(FRESH), seq=before_start)


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


async def _start_epoch(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    why: str,
    idempotency_keys: IdempotencyKeeper,
    *,
    issued: Seq | None = None,
) -> None:
    """Mint an epoch. Ids continue after `issued`, or jump over all that may have been issued."""
    # Commits stop first: the stream then has everything that this server will ever have of the
    # old history. If the process dies after the gap record, the next start jumps again, which
    # costs only ids.
    await partition.revoke_epoch()
    await drain_stream(partition, writer, idempotency_keys)
    # If the server was a replica in between, data that it took over is not drained yet.
    await partition.inspect()
    # Draining needs no tier, because a promoted server may have the only copy. Commits do.
    snapshot = await partition.read_snapshot()
    require_tier(snapshot.server)
    last_seq = Seq(max(snapshot.state.seq or 0, writer.cursor))
    if issued is None:
        start = writer.identity.strides.start
        issued = Seq(max(last_seq, writer.cursor + writer.identity.bound, start - 1) + 1)
    if issued > last_seq:
        last_seq = issued
        await partition.await_with_lease(asyncio.to_thread(writer.record_gap, last_seq, why))
        # On a full volume the stride stays: another try would make ids jump again.
        with suppress(ArchiveFull):
            await widen_stride(partition, writer, config, Seq(last_seq + 1))
    # After the gap record, which shows the lost usages, and before the epoch, under which retries
    # may arrive. Also for usages that the archive has and the server lacks.
    await idempotency_keys.restore(partition, writer)
    record = make_record(snapshot, writer, config, partition.endpoint)
    record |= {"doubt": doubt_reason(snapshot.server, config.tier)} | mint_epoch(why)
    await write_record(partition, writer, record, seq=last_seq)
