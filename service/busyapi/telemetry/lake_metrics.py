"""The metrics of `busyapi lake`, computed at the scrape: a lag grows while the process waits."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from busyapi.telemetry import metric_defs_lake
from busyapi.telemetry.metric_defs import PARTITION, MetricDef
from busyapi.telemetry.metrics import Metrics


class PartitionProgress(NamedTuple):
    """How far the table has come in one partition. None: not known yet."""

    partition: int
    lag_seconds: float | None
    behind_usages: int | None
    missing_usages: int | None
    problems: int
    succeeded_at: float


class LakeProgress(NamedTuple):
    """What a process has done, and how far the table has come."""

    usages: int
    failures: int
    partitions: Sequence[PartitionProgress]


class LakeMetrics(Metrics):
    """The metrics of `busyapi lake`, which observe its progress."""

    def __init__(self, read_progress: Callable[[], LakeProgress]) -> None:
        super().__init__("lake")
        self.registry.register(_ProgressCollector(read_progress))


class _ProgressCollector(Collector):
    def __init__(self, read_progress: Callable[[], LakeProgress]) -> None:
        self._read_progress = read_progress

    def collect(self) -> Iterable[Metric]:
        """Convert the progress to metrics."""
        progress = self._read_progress()
        for row, count in (
            (metric_defs_lake.USAGES, progress.usages),
            (metric_defs_lake.FAILURES, progress.failures),
        ):
            yield CounterMetricFamily(row.name, row.help, count, unit=row.unit)
        parts = progress.partitions
        yield _gauges(metric_defs_lake.LAG_SECONDS, {p.partition: p.lag_seconds for p in parts})
        yield _gauges(metric_defs_lake.BEHIND_USAGES, {p.partition: p.behind_usages for p in parts})
        yield _gauges(
            metric_defs_lake.MISSING_USAGES, {p.partition: p.missing_usages for p in parts}
        )
        yield _gauges(metric_defs_lake.PROBLEMS, {p.partition: p.problems for p in parts})
        yield _gauges(
            metric_defs_lake.SUCCEEDED_TIMESTAMP, {p.partition: p.succeeded_at for p in parts}
        )


def _gauges(row: MetricDef, values: dict[int, float | None]) -> Metric:
    family = GaugeMetricFamily(row.name, row.help, labels=[PARTITION.name], unit=row.unit)
    for partition, value in values.items():
        if value is not None:
            family.add_metric([str(partition)], value)
    return family
