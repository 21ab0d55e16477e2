"""The metrics of one cycle of the flusher."""

from collections.abc import Sequence
from typing import NamedTuple

from busyapi.archive.block_builder import AppendStats
from busyapi.archive.writer import PartitionWriter
from busyapi.telemetry.metrics import FlusherMetrics


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
