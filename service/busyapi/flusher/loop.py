"""The flusher's main loop: acquire, recover, seed, then flush until it must stop.

    acquire ──> recover ──> seed ──> run_cycle ─┐   Redis unavailable: acquire again
       ^                     ^  └───────────────┘   archive behind or damaged: halt, release lock
       └────────halt─────────┘                      and lease, retry until an operator has acted

A failed fsync ends the process; the next start writes a new file.
"""

import asyncio
from asyncio import to_thread
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import structlog

from busyapi.archive.unrecovered_folder import UnrecoveredFolder
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveFull,
    ArchiveTakenOver,
    DurabilityNotMet,
    FsyncFailed,
    LeaseLost,
    NotSeeded,
    RedisUnavailable,
    WaitingForParent,
    describe_for_log,
)
from busyapi.failpoints import failpoint
from busyapi.flusher import retry
from busyapi.flusher.buffer import FlushBuffer
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import PartitionConfig
from busyapi.flusher.pause import WidenTimer, reseed_wider
from busyapi.flusher.record import doubt_reason
from busyapi.flusher.replicas import ReplicaKeeper
from busyapi.flusher.resources import FlusherResources
from busyapi.flusher.seed import WITHOUT_JUMP, seed_partition
from busyapi.flusher.stats import ArchiveAge, StageTimes, measure_volume, record_flush
from busyapi.stream.partition import OwnedPartition
from busyapi.telemetry.metrics import FlusherMetrics

log = structlog.get_logger()

INSPECT_INTERVAL_SECONDS = 1.0


class Flusher:
    """The owner of one partition."""

    def __init__(
        self,
        config: PartitionConfig,
        folder: UnrecoveredFolder,
        connect: Callable[[str], OwnedPartition],
        metrics: FlusherMetrics,
        idempotency_keys: IdempotencyKeeper,
        *,
        replicas: ReplicaKeeper,
    ) -> None:
        self.not_ready_reason = "starting"
        """Why this flusher is not ready, "" if it is ready."""
        self.is_waiting = False
        """Not ready, but only because another partition has to make room for its ids."""
        self.durability_trust = ""
        """The value of BUSYAPI_REDIS_TRUST if this flusher's Redis needs it."""
        self._config = config
        self._resources = FlusherResources(config, folder, connect)
        self._metrics, self._replicas = metrics, replicas
        self._idempotency_keys = idempotency_keys
        self._buffer: FlushBuffer | None = None
        self._stopping = asyncio.Event()
        self._next_inspect, self._retention_refused = 0.0, False
        self._retry, self._age = retry.RetryDelay(), ArchiveAge()
        self._widen_timer = WidenTimer(config)
        self._durability_error = self._replica_error = ""
        metrics.bound_usages.set(config.bound)
        metrics.oldest_unarchived_seconds.set_function(self._oldest_seconds)
        metrics.failover_impossible.set_function(lambda: bool(replicas.failover.obstacle))

    @property
    def writer(self) -> PartitionWriter | None:
        """The archive's writer, None while the archive is closed."""
        return self._resources.writer

    async def run(self) -> None:
        """Flush until `stop`.

        Raises:
            FsyncFailed: an fsync failed; the process must exit.
        """
        while not self._stopping.is_set():
            await self._handle_step()
        await self._resources.close()

    def stop(self) -> None:
        """Make `run` flush what it has read, and return."""
        self._stopping.set()

    async def _handle_step(self) -> None:
        """Run one step, and handle each kind of failure."""
        try:
            await self._try_step()
        except FsyncFailed as error:
            self._metrics.archive_errors["sync"].inc()
            self.not_ready_reason = str(error)
            log.error("fsync_failed", detail=str(error))
            self._buffer = None
            await self._resources.abandon()
            raise

    async def _try_step(self) -> None:
        try:
            await self._step()
        except (RedisUnavailable, NotSeeded, LeaseLost, DurabilityNotMet) as error:
            # The next step reads again from the cursor: Redis still has what is not archived.
            if isinstance(error, DurabilityNotMet):
                self._metrics.durability_met.set(0)
            self._buffer = None
            blocked = ""
            if isinstance(error, RedisUnavailable) and self.writer:
                blocked = await self._replicas.fail_over(
                    self.writer, self._stopping, is_lost=self._retry.is_lost
                )
            await self._mark_not_ready(error, self._retry.next_seconds(error), blocked)
        except ArchiveFull as error:
            self._metrics.archive_errors["full"].inc()
            measure_volume(self._metrics, self.writer)
            await self._stay_owner()
            await self._mark_not_ready(error, retry.RETRY_INTERVAL_SECONDS)
        except ArchiveTakenOver as error:
            self._buffer = None
            await self._resources.abandon()
            await self._mark_not_ready(error, retry.RETRY_INTERVAL_SECONDS)
        except FsyncFailed:
            raise  # not one of the errors after which the same process tries again
        except retry.HALTING_ERRORS as error:
            # Lock and lease are released so that an operator can repair; the next step rereads all.
            self._buffer = None
            await self._resources.close()
            self._metrics.halted.set(1)
            await self._mark_not_ready(error, retry.HALT_RETRY_SECONDS)
        except (ArchiveError, OSError, ValueError) as error:
            self._metrics.archive_errors["io"].inc()
            self._buffer = None
            await self._resources.close()
            await self._mark_not_ready(error, retry.HALT_RETRY_SECONDS)

    async def _stay_owner(self) -> None:
        """Keep the lease, and let replicas connect and leave, while nothing can be archived."""
        partition = self._resources.partition
        try:
            if partition:
                self._metrics.issued_seq.set(await partition.renew_lease())
            if partition and self._buffer:
                await self._update_replicas(partition)
        except (RedisUnavailable, LeaseLost, NotSeeded, ArchiveDamaged, ArchiveFull):
            self._buffer = None
        except ArchiveTakenOver:
            self._buffer = None
            await self._resources.abandon()

    async def _mark_not_ready(self, error: Exception, seconds: float, detail: str = "") -> None:
        self._metrics.flusher_ready.set(0)
        reason = "; ".join(filter(None, (describe_for_log(error), detail)))
        if reason != self.not_ready_reason:
            log.warning("flusher_not_ready", reason=type(error).__name__, detail=reason)
        self.not_ready_reason, self.is_waiting = reason, isinstance(error, WaitingForParent)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _step(self) -> None:
        if self._buffer is None:
            partition, writer = await self._resources.acquire()
            self.report_damage(writer)
            await self._seed(partition, writer)
        await self.run_cycle()
        await self._widen_stride()

    async def _widen_stride(self) -> None:
        """Make room for ids of new partitions, when few usages wait: commits stop meanwhile."""
        writer, partition, _ = self._require_running()
        if self._widen_timer.is_due(writer, self._age.backlog):
            try:
                await reseed_wider(partition, writer, self._config, self._idempotency_keys)
            finally:  # the former buffer would read on from before the cursor
                self._buffer = FlushBuffer(writer.cursor, self._idempotency_keys)

    def report_damage(self, writer: PartitionWriter) -> None:
        """Log and count damage that was not reported yet."""
        self._metrics.damaged_files.set(writer.stats.damaged_files)
        while writer.damage_reports:
            log.error("archive_damaged", detail=writer.damage_reports.pop(0))
        while writer.notices:
            log.warning("archive_warning", detail=writer.notices.pop(0))
        refusal = writer.retention_refusal
        self._metrics.retention_refused.set(1 if refusal else 0)
        if refusal and not self._retention_refused:
            log.warning("retention_refused", detail=refusal)
        self._retention_refused = bool(refusal)

    async def _seed(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        cursor = writer.cursor
        predecessors = await self._replicas.require_holder(partition, writer)
        why = await seed_partition(
            partition, writer, self._config, self._idempotency_keys, predecessors
        )
        log.info("partition_seeded", why=why, cursor=writer.cursor)
        if why not in WITHOUT_JUMP:
            self._metrics.epoch_jumps.inc()
            log.warning("ids_skipped", why=why, before_seq=cursor, after_seq=writer.cursor)
        await self._update_replicas(partition)
        self._retry.reset()
        self._buffer = FlushBuffer(writer.cursor, self._idempotency_keys)

    async def run_cycle(self) -> None:
        """Run one cycle: read usages, archive them, and publish the cursor."""
        writer, partition, buffer = self._require_running()
        started = monotonic()
        await buffer.fill(partition, self._stopping, lambda: self._replicas.is_due(partition))
        bad_entry, newest_ms = buffer.quarantined, buffer.newest_ms
        filled = monotonic()
        usages, appends = await buffer.flush(writer, partition)
        # A recovery by another process copies the open segment: later appends are then in no file.
        await to_thread(writer.check_ownership)
        written = monotonic()
        failpoint("flusher-before-publish")
        # Also without usages: it renews the lease and detects an epoch that a committer revoked.
        issued = await partition.publish(writer.cursor)
        failpoint("flusher-after-publish")
        await self._idempotency_keys.rotate(partition, writer.cursor)
        if bad_entry:
            entry, why = bad_entry
            self._metrics.quarantined_usages.inc(entry.last - entry.first + 1)
            log.error("entry_quarantined", first_seq=entry.first, last_seq=entry.last, why=why)
        times = StageTimes(started, filled, written, monotonic())
        record_flush(self._metrics, usages, appends, times)
        self._age.record_cycle(issued - writer.cursor, newest_ms)
        if await partition.await_with_lease(to_thread(writer.roll_if_due)):
            self._metrics.segments_finished.inc()
        await self._inspect(partition)
        self._mark_ready(writer, issued)

    def _require_running(self) -> tuple[PartitionWriter, OwnedPartition, FlushBuffer]:
        assert self._resources.writer  # noqa: S101 - `_step` set all three
        assert self._resources.partition  # noqa: S101
        assert self._buffer  # noqa: S101
        return self._resources.writer, self._resources.partition, self._buffer

    async def _inspect(self, partition: OwnedPartition) -> None:
        """Check that the server still meets the tier, and whether a restart could hide a loss."""
        replica_error = await self._update_replicas(partition)
        if monotonic() < self._next_inspect and replica_error == self._replica_error:
            return
        self._replica_error = replica_error
        self._next_inspect = monotonic() + INSPECT_INTERVAL_SECONDS
        server = await partition.inspect()
        # Committers refuse a server below its tier; the flusher still archives what they stored.
        self._durability_error = server.durability_error or replica_error
        self._metrics.durability_met.set(0 if self._durability_error else 1)
        self.durability_trust = server.trust
        self._metrics.durability_trusted.set(1 if server.trust else 0)
        self._metrics.redis_memory_bytes.set(server.memory_bytes)
        self._metrics.redis_memory_max_bytes.set(server.memory_max_bytes)
        self._idempotency_keys.report(server.memory_max_bytes, self._metrics)
        why = "it did not meet its durability tier for a while" if server.durability_error else ""
        if why := why or doubt_reason(server, self._config.tier):
            await partition.record_doubt(why)

    async def _update_replicas(self, partition: OwnedPartition) -> str:
        assert self.writer  # noqa: S101 - it owns the partition
        refusal = await self._replicas.update(partition, self.writer)
        self._metrics.replicas_confirming.set(len(self._replicas.confirming))
        return refusal

    def _mark_ready(self, writer: PartitionWriter, issued: int) -> None:
        if self.not_ready_reason != self._durability_error:
            if self._durability_error:
                log.warning("durability_not_met", detail=self._durability_error)
            else:
                log.info("flusher_ready", cursor=writer.cursor)
        self.not_ready_reason, self.is_waiting = self._durability_error, False
        self._retry.reset()
        self._metrics.flusher_ready.set(0 if self._durability_error else 1)
        self._metrics.halted.set(0)
        self._metrics.issued_seq.set(issued)
        self._metrics.archived_seq.set(writer.cursor)
        self._metrics.segment_bytes.set(writer.stats.open_bytes)
        self.report_damage(writer)
        measure_volume(self._metrics, self.writer)

    def _oldest_seconds(self) -> float:
        return self._age.seconds(self._buffer.oldest_ms if self._buffer else None)
