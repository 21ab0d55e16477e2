"""The flusher's life: recover, seed, flush, until it is told to stop.

    recover ──> seed ──> turn ──┐     Redis away: seed again
       ^          ^ └───────────┘     archive behind or damaged: halt, the lock let go, and try
       └──halt────┘                   again after a person has typed `accept-loss`

A failed fsync ends the process; the next start writes a new file.
"""

import asyncio
import time
from collections.abc import Callable
from time import monotonic

import structlog

from busyapi.archive.writer import Flushed, PartitionWriter
from busyapi.errors import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveFull,
    ArchiveLocked,
    BusyapiError,
    LeaseLost,
    LossSuspected,
    NotSeeded,
    PartitionMismatch,
    RedisAway,
    SyncFailed,
    TooWeak,
)
from busyapi.failpoints import failpoint
from busyapi.flusher.intake import Intake
from busyapi.flusher.seed import Install, doubt, seed
from busyapi.metrics import FlusherMetrics
from busyapi.stream.partition import Partition

log = structlog.get_logger()

INSPECT_SECONDS = 1.0
HALT_SECONDS = 3.0
RETRY_SECONDS = 0.3

Recover = Callable[[], PartitionWriter]


class Flusher:
    """Owns one partition."""

    def __init__(
        self,
        install: Install,
        recover: Recover,
        connect: Callable[[str], Partition],
        metrics: FlusherMetrics,
    ) -> None:
        self.writer: PartitionWriter | None = None
        self.trouble = "starting"
        """Why this flusher is not ready, "" when it is."""
        self._install = install
        self._recover_writer = recover
        self._connect = connect
        self._metrics = metrics
        self._partition: Partition | None = None
        self._intake: Intake | None = None
        self._stopping = asyncio.Event()
        self._next_inspect = 0.0
        self._weak = ""
        metrics.bound.set(install.bound)
        metrics.oldest.set_function(self._oldest_seconds)

    async def run(self) -> None:
        """Flush until `stop`.

        Raises:
            SyncFailed: the disk refused an fsync; the process must exit.
        """
        while not self._stopping.is_set():
            await self._guarded()
        await self._close()

    def stop(self) -> None:
        """Ask `run` to flush what it has read, and return."""
        self._stopping.set()

    async def _guarded(self) -> None:
        """Do one step, and answer each failure with what it asks for."""
        try:
            await self._step()
        except (RedisAway, NotSeeded, LeaseLost, TooWeak) as error:
            # Read again from the cursor: what was taken in but not archived is still there.
            await self._unready(error, RETRY_SECONDS)
            self._intake = None
        except ArchiveFull as error:
            self._metrics.errors.labels("full").inc()
            await self._keep_lease()
            await self._unready(error, RETRY_SECONDS)
        except SyncFailed as error:
            self._metrics.errors.labels("sync").inc()
            log.error("fsync_failed", detail=str(error))
            raise
        except (LossSuspected, PartitionMismatch, ArchiveLocked, ArchiveDamaged) as error:
            # The lock is let go, so that a person can repair; then everything is read anew.
            await self._close()
            self._metrics.halted.set(1)
            await self._unready(error, HALT_SECONDS)
        except (ArchiveError, OSError, ValueError) as error:
            self._metrics.errors.labels("io").inc()
            await self._close()
            await self._unready(error, HALT_SECONDS)

    async def _keep_lease(self) -> None:
        """While nothing can be archived: stay the owner, and go on telling how far ids are."""
        try:
            if self._partition:
                self._metrics.issued.set(await self._partition.keep_lease())
        except (RedisAway, LeaseLost, NotSeeded):
            self._intake = None

    async def _unready(self, error: Exception, seconds: float) -> None:
        self._metrics.seeded.set(0)
        named = isinstance(error, BusyapiError)
        trouble = str(error) if named else f"{type(error).__name__}: {error}"
        if trouble != self.trouble:
            log.warning("flusher_not_ready", reason=type(error).__name__, detail=trouble)
        self.trouble = trouble
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            pass

    async def _step(self) -> None:
        if self.writer is None:
            self.writer = await asyncio.to_thread(self._recover_writer)
            log.info("archive_recovered", cursor=self.writer.cursor)
            for alarm in self.writer.alarms:
                self._metrics.damaged.inc()
                log.error("archive_damaged", detail=alarm)
        if self._intake is None or self._partition is None:
            await self._seed(self.writer)
        await self.turn()

    async def _seed(self, writer: PartitionWriter) -> None:
        if self._partition is None:
            self._partition = self._connect(writer.archive_id)
        await self._partition.connect()
        cursor = writer.cursor
        why = await seed(self._partition, writer, self._install)
        log.info("partition_seeded", why=why, cursor=writer.cursor)
        if why not in {"same history", "fresh install"}:
            self._metrics.jumps.inc()
            log.warning("ids_jumped", why=why, before=cursor, after=writer.cursor)
        self._intake = Intake(writer.cursor)

    async def turn(self) -> None:
        """Gather, archive, publish: the one thing that a flusher does."""
        writer, partition, intake = self._running()
        await intake.gather(partition, self._stopping)
        bad = intake.bad
        started = monotonic()
        usages, flushed = await intake.flush(writer)
        failpoint("flusher-before-publish")
        # Also when there was nothing to flush: it keeps the lease, and is how a flusher learns
        # that a lane took the epoch away.
        issued = await partition.publish(writer.cursor)
        failpoint("flusher-after-publish")
        if bad:
            self._metrics.quarantined.inc(bad[0].last - bad[0].first + 1)
            log.error("entry_quarantined", first=bad[0].first, last=bad[0].last, why=bad[1])
        self._measure_flush(usages, flushed, monotonic() - started)
        await asyncio.to_thread(writer.roll_if_due)
        await self._inspect(partition)
        self._ready(writer, issued)

    def _running(self) -> tuple[PartitionWriter, Partition, Intake]:
        assert self.writer  # noqa: S101 - _step() made all three
        assert self._partition  # noqa: S101
        assert self._intake  # noqa: S101
        return self.writer, self._partition, self._intake

    async def _inspect(self, partition: Partition) -> None:
        """See that the server still holds the tier, and whether a restart could hide a loss."""
        if monotonic() < self._next_inspect:
            return
        self._next_inspect = monotonic() + INSPECT_SECONDS
        server = await partition.inspect()
        # Lanes refuse a weak server; what they stored before they saw it is archived all the more.
        self._weak = server.weak
        why = "weaker than its tier for a while" if server.weak else ""
        if why := why or doubt(server, self._install.tier):
            await partition.doubt(why)

    def _ready(self, writer: PartitionWriter, issued: int) -> None:
        if self.trouble != self._weak:
            if self._weak:
                log.warning("redis_too_weak", detail=self._weak)
            else:
                log.info("flusher_ready", cursor=writer.cursor)
        self.trouble = self._weak
        self._metrics.seeded.set(0 if self._weak else 1)
        self._metrics.halted.set(0)
        self._metrics.issued.set(issued)
        self._metrics.archived.set(writer.cursor)
        self._metrics.segment_bytes.set(writer.open_bytes)
        self._metrics.free.set(writer.free_bytes())

    def _measure_flush(self, usages: int, flushed: Flushed | None, seconds: float) -> None:
        if flushed is None:
            return
        self._metrics.flush_usages.observe(usages)
        self._metrics.flush_seconds.observe(seconds)
        self._metrics.fsync_seconds.observe(flushed.sync_seconds)
        self._metrics.written.inc(flushed.bytes)

    def _oldest_seconds(self) -> float:
        oldest = self._intake.oldest_ms if self._intake else None
        return max(0.0, time.time() - oldest / 1000) if oldest else 0.0

    async def _close(self) -> None:
        self._intake = None
        if self._partition:
            await self._partition.close()
            self._partition = None
        if self.writer:
            writer, self.writer = self.writer, None
            await asyncio.to_thread(writer.close)
