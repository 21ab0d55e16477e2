"""The metrics of one cycle of the flusher."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from busyapi.archive.block_builder import AppendStats
from busyapi.archive.writer import PartitionWriter
from busyapi.telemetry.metrics import FlusherMetrics

MAX_IDLE_CYCLE_SECONDS = 3.0
"""A cycle without new usages takes a second. A longer one could not read the stream."""


class ArchiveAge:
    """How old the oldest usage is that is not archived yet."""

    def __init__(self) -> None:
        self._until = time.time()
        """Every usage received before this time is archived, as of the last cycle."""
        self.backlog = 0
        """Usages that the last cycle left in Redis."""

    def record_cycle(self, backlog: int, newest_ms: int | None) -> None:
        """Record how many usages a cycle left, and when its newest one was received."""
        self.backlog = max(0, backlog)
        if not self.backlog:
            self._until = time.time()
        elif newest_ms:
            self._until = newest_ms / 1000

    def seconds(self, oldest_ms: int | None) -> float:
        """Return the age of the oldest unarchived usage; if unknown, the largest possible age.

        `oldest_ms` is of the usages that were read and are not archived yet.
        """
        age = time.time() - (oldest_ms / 1000 if oldest_ms else self._until)
        if oldest_ms is None and not self.backlog and age < MAX_IDLE_CYCLE_SECONDS:
            return 0.0
        return max(0.0, age)


class StageTimes(NamedTuple):
    """The times at which a cycle's stages ended."""

    started: float
    filled: float
    written: float
    published: float


def record_flush(
    metrics: FlusherMetrics, usages: int, appends: Sequence[AppendStats], times: StageTimes
) -> None:
    """Record the times of a cycle's stages and, if it archived usages, their number and bytes."""
    stages = metrics.stage_seconds
    sync_seconds = sum(append.sync_seconds for append in appends)
    stages["read"].inc(times.filled - times.started)
    stages["write"].inc(max(0.0, times.written - times.filled - sync_seconds))
    stages["fsync"].inc(sync_seconds)
    stages["publish"].inc(times.published - times.written)
    if not appends:
        return
    metrics.flush_usages.observe(usages)
    metrics.flush_seconds.observe(times.published - times.filled)
    for append in appends:
        metrics.fsync_seconds.observe(append.sync_seconds)
    metrics.written_bytes.inc(sum(append.bytes for append in appends))


def measure_volume(metrics: FlusherMetrics, writer: PartitionWriter | None) -> None:
    """Set the metrics of the archive's volume."""
    if writer:
        free, size = writer.stats.read_volume_bytes()
        metrics.volume_free_bytes.set(free)
        metrics.volume_size_bytes.set(size)
