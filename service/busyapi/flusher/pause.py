"""The pause in which a flusher widens its partition's stride: no commit succeeds meanwhile.

    revoke the epoch, and keep it as `paused` ─> archive what the stream has ─> partition.json
      ─> record with the new strides and the next epoch of the same history

If the flusher dies in between, its next start finds the paused epoch, and continues here.
"""

from time import monotonic

import structlog

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull, NotSeeded
from busyapi.failpoints import failpoint
from busyapi.flusher.buffer import drain_stream
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import PartitionConfig
from busyapi.flusher.record import make_record, mint_epoch, require_tier, write_record
from busyapi.flusher.strides import find_wider_stride, widen_stride
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import continue_epoch, record_strides

log = structlog.get_logger()

MAX_BACKLOG_USAGES = 20_000
"""A flusher widens its stride when it has archived all but these: no commit succeeds meanwhile."""
INTERVAL_SECONDS = 60.0
"""The time between two tries: each one stops commits, and fails while the volume is full."""


class WidenTimer:
    """When a flusher next tries to widen the stride."""

    def __init__(self, config: PartitionConfig) -> None:
        self._config = config
        self._next = 0.0

    def is_due(self, writer: PartitionWriter, backlog: int) -> bool:
        """Return whether to try now; the next try is then due after the interval."""
        now = monotonic()
        if backlog > MAX_BACKLOG_USAGES or now < self._next:
            return False
        if not find_wider_stride(writer, self._config):
            return False
        self._next = now + INTERVAL_SECONDS
        return True


async def reseed_wider(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
) -> None:
    """Widen the stride of a seeded partition. Its seqs continue without a jump.

    What the stream has is then archived: read it from the new cursor on, also after an error.

    Raises:
        NotSeeded, RedisUnavailable, LeaseLost, ArchiveTakenOver, DurabilityNotMet: seed again.
        ArchiveFull: the stride is as it was, and commits continue.
    """
    epoch = await partition.revoke_epoch(pause=True)
    if not epoch:
        raise NotSeeded("a process saw that Redis went back")
    failpoint("flusher-after-pause")
    await end_pause(partition, writer, config, idempotency_keys, epoch)
    log.info("stride_widened", strides=writer.identity.strides.encode(), cursor=writer.cursor)


async def end_pause(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    idempotency_keys: IdempotencyKeeper,
    paused: str,
) -> None:
    """Widen the stride, if it is not wide enough yet, and continue a paused epoch.

    Raises:
        NotSeeded, RedisUnavailable, LeaseLost, ArchiveTakenOver, DurabilityNotMet: seed again.
        ArchiveFull: the stride is as it was, and commits continue.
    """
    try:
        await drain_stream(partition, writer, idempotency_keys)
        snapshot = await partition.read_snapshot()
        require_tier(snapshot.server)
        if not is_paused(snapshot, writer):
            raise NotSeeded("the server has changed")
        last_seq = max(writer.cursor, snapshot.state.seq or 0)
        await widen_stride(partition, writer, config, Seq(last_seq + 1))
    except ArchiveFull:
        # Commits continue until the bound. The stride is wider already if an earlier try wrote it
        # to partition.json and died before the record: no commit may take the former one.
        record = {**record_strides(writer.identity.strides), "paused": ""}
        record |= mint_epoch("full volume", continue_epoch(paused))
        await partition.seed(writer.cursor, record)
        raise
    failpoint("flusher-after-widen")
    record = make_record(snapshot, writer, config, partition.endpoint)
    record |= mint_epoch("more partitions", continue_epoch(paused))
    await write_record(partition, writer, record)


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
