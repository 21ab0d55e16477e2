"""The flusher's life: claim, recover, seed, flush, until it is asked to stop.

    claim ──> recover ──> seed ──> turn ──┐     Redis away: claim again
      ^                    ^  └───────────┘     archive behind or damaged: halt, lock and lease
      └───────halt─────────┘                    released, and try again until a person has acted

A failed fsync ends the process; the next start writes a new file.
"""

import asyncio
import time
from asyncio import to_thread
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

import structlog

from busyapi.archive.volume import Volume
from busyapi.archive.writer import Flushed, PartitionWriter
from busyapi.errors import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveFull,
    ArchiveLocked,
    ArchiveTaken,
    LeaseLost,
    LossSuspected,
    NotSeeded,
    PartitionMismatch,
    RedisAway,
    SyncFailed,
    TooWeak,
    UnknownVersion,
    told,
)
from busyapi.failpoints import failpoint
from busyapi.flusher.compare import Install
from busyapi.flusher.hold import Hold
from busyapi.flusher.intake import Intake
from busyapi.flusher.keys import KeyKeeper
from busyapi.flusher.seed import doubt, seed
from busyapi.metrics import FlusherMetrics
from busyapi.stream.partition import Partition

log = structlog.get_logger()

INSPECT_SECONDS = 1.0
HALT_SECONDS = 3.0
RETRY_SECONDS = 0.3
IDLE_SECONDS = 3.0
"""A turn that finds nothing takes a second; one that takes longer than this could not look."""


class Times(NamedTuple):
    """When a turn's stages ended."""

    began: float
    gathered: float
    written: float
    published: float


class Flusher:
    """Owns one partition."""

    def __init__(
        self,
        install: Install,
        volume: Volume,
        connect: Callable[[str], Partition],
        metrics: FlusherMetrics,
        keys: KeyKeeper,
    ) -> None:
        self.trouble = "starting"
        """Why this flusher is not ready, "" when it is."""
        self._install = install
        self._hold = Hold(install, volume, connect)
        self._metrics, self._keys = metrics, keys
        self._intake: Intake | None = None
        self._stopping = asyncio.Event()
        self._next_inspect = 0.0
        self._weak = ""
        self._retention_refused = False
        metrics.bound.set(install.bound)
        self._archived_until = time.time()
        """Nothing that was received before this time is unarchived, as of the last turn."""
        self._caught_up = True
        """That turn left nothing."""
        metrics.oldest.set_function(self._oldest_seconds)

    @property
    def writer(self) -> PartitionWriter | None:
        """The archive, while it is open."""
        return self._hold.writer

    async def run(self) -> None:
        """Flush until `stop`.

        Raises:
            SyncFailed: the disk refused an fsync; the process must exit.
        """
        while not self._stopping.is_set():
            await self._guarded()
        await self._hold.close()

    def stop(self) -> None:
        """Ask `run` to flush what it has read, and return."""
        self._stopping.set()

    async def _guarded(self) -> None:
        """Do one step, and answer each failure with what it asks for."""
        try:
            await self._step()
        except (RedisAway, NotSeeded, LeaseLost, TooWeak) as error:
            # Read again from the cursor: what was taken in but not archived is still there.
            if isinstance(error, TooWeak):
                self._metrics.held.set(0)
            await self._unready(error, RETRY_SECONDS)
            self._intake = None
        except ArchiveFull as error:
            self._metrics.errors["full"].inc()
            self._measure_volume()
            await self._keep_lease()
            await self._unready(error, RETRY_SECONDS)
        except SyncFailed as error:
            self._metrics.errors["sync"].inc()
            self.trouble = str(error)
            log.error("fsync_failed", detail=str(error))
            self._intake = None
            await self._hold.abandon()
            raise
        except ArchiveTaken as error:
            self._intake = None
            await self._hold.abandon()
            await self._unready(error, RETRY_SECONDS)
        except (
            LossSuspected,
            PartitionMismatch,
            ArchiveLocked,
            ArchiveDamaged,
            UnknownVersion,
        ) as error:
            # Lock and lease are released, so that a person can repair; then all is read again.
            self._intake = None
            await self._hold.close()
            self._metrics.halted.set(1)
            await self._unready(error, HALT_SECONDS)
        except (ArchiveError, OSError, ValueError) as error:
            self._metrics.errors["io"].inc()
            self._intake = None
            await self._hold.close()
            await self._unready(error, HALT_SECONDS)

    async def _keep_lease(self) -> None:
        """While nothing can be archived: stay the owner, and go on telling how far ids are."""
        try:
            if self._hold.partition:
                self._metrics.issued.set(await self._hold.partition.keep_lease())
        except (RedisAway, LeaseLost, NotSeeded):
            self._intake = None
        except ArchiveTaken:
            self._intake = None
            await self._hold.abandon()

    async def _unready(self, error: Exception, seconds: float) -> None:
        self._metrics.seeded.set(0)
        trouble = told(error)
        if trouble != self.trouble:
            log.warning("flusher_not_ready", reason=type(error).__name__, detail=trouble)
        self.trouble = trouble
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _step(self) -> None:
        if self._intake is None:
            partition, writer = await self._hold.claim()
            self.tell_damage(writer)
            await self._seed(partition, writer)
        await self.turn()

    def tell_damage(self, writer: PartitionWriter) -> None:
        """Log and count the damage that was not told yet."""
        self._metrics.damaged.set(writer.damaged)
        while writer.alarms:
            log.error("archive_damaged", detail=writer.alarms.pop(0))
        while writer.notices:
            log.warning("archive_notice", detail=writer.notices.pop(0))
        refused = writer.retention_refused
        self._metrics.retention_refused.set(1 if refused else 0)
        if refused and not self._retention_refused:
            log.warning("retention_refused", detail=refused)
        self._retention_refused = bool(refused)

    async def _seed(self, partition: Partition, writer: PartitionWriter) -> None:
        cursor = writer.cursor
        why = await seed(partition, writer, self._install, self._keys)
        log.info("partition_seeded", why=why, cursor=writer.cursor)
        if why not in {"same history", "fresh install"}:
            self._metrics.jumps.inc()
            log.warning("ids_jumped", why=why, before=cursor, after=writer.cursor)
        self._intake = Intake(writer.cursor, self._keys)

    async def turn(self) -> None:
        """Gather, archive, publish: the one thing that a flusher does."""
        writer, partition, intake = self._running()
        began = monotonic()
        await intake.gather(partition, self._stopping)
        bad, newest_ms = intake.bad, intake.newest_ms
        gathered = monotonic()
        usages, flushed = await intake.flush(writer, partition)
        # A recovery by another process copies the open segment: what came after is in no file.
        await to_thread(writer.check_ours)
        written = monotonic()
        failpoint("flusher-before-publish")
        # Also when there was nothing to flush: it keeps the lease, and is how a flusher learns
        # that a lane took the epoch away.
        issued = await partition.publish(writer.cursor)
        failpoint("flusher-after-publish")
        await self._keys.keep(partition, writer.cursor)
        if bad:
            self._metrics.quarantined.inc(bad[0].last - bad[0].first + 1)
            log.error("entry_quarantined", first=bad[0].first, last=bad[0].last, why=bad[1])
        self._measure_flush(usages, flushed, Times(began, gathered, written, monotonic()))
        self._caught_up = issued <= writer.cursor
        if self._caught_up:
            self._archived_until = time.time()
        elif newest_ms:
            self._archived_until = newest_ms / 1000
        if await partition.while_renewing(to_thread(writer.roll_if_due)):
            self._metrics.segments.inc()
        await self._inspect(partition)
        self._ready(writer, issued)

    def _running(self) -> tuple[PartitionWriter, Partition, Intake]:
        assert self._hold.writer  # noqa: S101 - _step() made all three
        assert self._hold.partition  # noqa: S101
        assert self._intake  # noqa: S101
        return self._hold.writer, self._hold.partition, self._intake

    async def _inspect(self, partition: Partition) -> None:
        """See that the server still holds the tier, and whether a restart could hide a loss."""
        if monotonic() < self._next_inspect:
            return
        self._next_inspect = monotonic() + INSPECT_SECONDS
        server = await partition.inspect()
        # Lanes refuse a weak server; what they stored before they saw it is archived all the more.
        self._weak = server.weak
        self._metrics.held.set(0 if server.weak else 1)
        self._metrics.memory.set(server.memory_bytes)
        self._metrics.memory_max.set(server.memory_max_bytes)
        self._keys.look(server.memory_max_bytes, self._metrics)
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
        self.tell_damage(writer)
        self._measure_volume()

    def _measure_volume(self) -> None:
        if self.writer:
            free, size = self.writer.volume_bytes()
            self._metrics.free.set(free)
            self._metrics.size.set(size)

    def _measure_flush(self, usages: int, flushed: list[Flushed], times: "Times") -> None:
        stages = self._metrics.stages
        synced = sum(each.sync_seconds for each in flushed)
        stages["read"].inc(times.gathered - times.began)
        stages["write"].inc(max(0.0, times.written - times.gathered - synced))
        stages["fsync"].inc(synced)
        stages["publish"].inc(times.published - times.written)
        if not flushed:
            return
        self._metrics.flush_usages.observe(usages)
        self._metrics.flush_seconds.observe(times.published - times.gathered)
        for each in flushed:
            self._metrics.fsync_seconds.observe(each.sync_seconds)
        self._metrics.written.inc(sum(each.bytes for each in flushed))

    def _oldest_seconds(self) -> float:
        """Take the worst for true when nobody could look: what is not known archived may wait."""
        oldest = self._intake.oldest_ms if self._intake else None
        age = time.time() - (oldest / 1000 if oldest else self._archived_until)
        if oldest is None and self._caught_up and age < IDLE_SECONDS:
            return 0.0
        return max(0.0, age)
