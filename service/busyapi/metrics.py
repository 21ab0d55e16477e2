"""The metrics of a process, made from the rows of the catalogue.

One registry a process. What happens for each request is tallied in plain integers and turned
into metrics at the scrape: a prometheus_client call for each costs a tenth of a core at a million
a minute. What a label may say is what the catalogue lists: counters with a reason are a dictionary
of them, all there from the start.
"""

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from busyapi import catalogue, catalogue_api, catalogue_flusher
from busyapi.accept_queue import AcceptQueue
from busyapi.catalogue import PARTITION, Row
from busyapi.errors import BusyapiError

# They are a series more for each counter and histogram, and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally:
    """A histogram in plain integers."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Give cumulative counts, as Prometheus wants them."""
        rows, running = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
        return rows


class Answered:
    """The answered requests of one route."""

    def __init__(self, statuses: Iterable[int] = ()) -> None:
        self.statuses = dict.fromkeys(statuses, 0)
        self.seconds = Tally(catalogue.LATENCY_BUCKETS)

    def add(self, status: int, seconds: float) -> None:
        """Count one."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.add(seconds)


class Requests(Collector):
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self._routes = {
            route: Answered(catalogue_api.POST_STATUSES) for route in catalogue_api.POST_ROUTES
        }

    def of(self, route: str) -> Answered:
        """Give what one route is counted in."""
        return self._routes.get(route) or self._routes.setdefault(route, Answered())

    def collect(self) -> Iterable[Metric]:
        """Turn the tallies into metrics."""
        row = catalogue_api.REQUESTS
        total = CounterMetricFamily(row.name, row.meaning, labels=_labels(row))
        routes = list(self._routes.items())
        for route, answered in routes:
            for status, count in list(answered.statuses.items()):
                total.add_metric([route, str(status)], count)
        yield total
        row = catalogue_api.REQUEST_SECONDS
        took = HistogramMetricFamily(row.name, row.meaning, labels=_labels(row), unit=row.unit)
        for route, answered in routes:
            took.add_metric([route], answered.seconds.buckets(), answered.seconds.total)
        yield took


class Metrics:
    """What every process has, and how a row becomes a metric."""

    def __init__(self, role: str, tier: str, partition: int | None = None) -> None:
        self.registry = CollectorRegistry()
        self._partition = [] if partition is None else [str(partition)]
        build = self._gauge(catalogue.BUILD, [version("busyapi"), platform.python_version(), role])
        build.set(1)
        self.held = self._gauge(catalogue.HELD, [tier])
        self.held.set(1)

    def exposition(self, accept: str) -> tuple[Callable[[], bytes], str]:
        """Return how to render what a scrape reads, and its type: OpenMetrics if accepted."""
        encode, content_type = choose_encoder(accept)
        return partial(encode, self.registry), content_type

    def _names(self, row: Row) -> list[str]:
        # A flusher's partition is on all that it gives, and is the last label.
        names = [each.name for each in row.labels if each != PARTITION]
        return names + [PARTITION.name] * len(self._partition)

    def _gauge(self, row: Row, values: Sequence[str] = ()) -> Gauge:
        gauge = Gauge(
            row.name, row.meaning, self._names(row), unit=row.unit, registry=self.registry
        )
        return gauge.labels(*values, *self._partition) if values or self._partition else gauge

    def _counter(self, row: Row) -> PrometheusCounter:
        counter = self._counter_family(row)
        return counter.labels(*self._partition) if self._partition else counter

    def _counters(self, row: Row) -> dict[str, PrometheusCounter]:
        """Make a counter for each value of the row's first label."""
        family = self._counter_family(row)
        return {each: family.labels(each, *self._partition) for each in row.labels[0].values}

    def _counter_family(self, row: Row) -> PrometheusCounter:
        return PrometheusCounter(
            row.name, row.meaning, self._names(row), unit=row.unit, registry=self.registry
        )

    def _histogram(self, row: Row) -> Histogram:
        histogram = Histogram(
            row.name,
            row.meaning,
            self._names(row),
            unit=row.unit,
            registry=self.registry,
            buckets=row.buckets,
        )
        return histogram.labels(*self._partition) if self._partition else histogram


class ApiMetrics(Metrics):
    """What an API process measures; it is the observer of its lanes."""

    def __init__(self, tier: str) -> None:
        super().__init__("api", tier)
        self.requests = Requests()
        self.registry.register(self.requests)
        self.usages = self._counter(catalogue_api.USAGES)
        self.refused = self._counters(catalogue_api.REFUSED)
        self.batch = self._histogram(catalogue_api.BATCH)
        self.commit = self._histogram(catalogue_api.COMMIT)
        self.pending = self._gauge(catalogue_api.PENDING)
        self.lanes = self._by_partition(catalogue_api.LANES)
        self.last_seq = self._by_partition(catalogue_api.COMMITTED)
        self.lost = self._counters(catalogue_api.LANE_FAILED)
        self.connections = self._gauge(catalogue_api.CONNECTIONS)
        self.connections_refused = self._counter(catalogue_api.CONNECTIONS_REFUSED)
        self.receiving = self._gauge(catalogue_api.RECEIVING)
        self.registry.register(AcceptQueue(catalogue_api.ACCEPT_QUEUE))

    def _by_partition(self, row: Row) -> Gauge:
        labels = [PARTITION.name]
        return Gauge(row.name, row.meaning, labels, unit=row.unit, registry=self.registry)

    def committed(self, usages: int, seconds: float) -> None:
        """Count a stored call; a repeat counts 0 usages."""
        self.commit.observe(seconds)
        if usages:
            self.batch.observe(usages)
            self.usages.inc(usages)

    def reconnecting(self, error: BusyapiError) -> None:
        """Count a lane's failure."""
        self.lost[type(error).__name__].inc()


class FlusherMetrics(Metrics):
    """What a flusher measures, all for its one partition."""

    def __init__(self, tier: str, partition: int = 0) -> None:
        super().__init__("flusher", tier, partition)
        self.issued = self._gauge(catalogue_flusher.ISSUED)
        self.archived = self._gauge(catalogue_flusher.ARCHIVED)
        self.bound = self._gauge(catalogue_flusher.BOUND)
        self.oldest = self._gauge(catalogue_flusher.OLDEST)
        self.seeded = self._gauge(catalogue_flusher.SEEDED)
        self.halted = self._gauge(catalogue_flusher.HALTED)
        self.jumps = self._counter(catalogue_flusher.JUMPS)
        self.quarantined = self._counter(catalogue_flusher.QUARANTINED)
        self.flush_usages = self._histogram(catalogue_flusher.FLUSH_USAGES)
        self.flush_seconds = self._histogram(catalogue_flusher.FLUSH_SECONDS)
        self.fsync_seconds = self._histogram(catalogue_flusher.FSYNC)
        self.stages = self._counters(catalogue_flusher.STAGE)
        self.errors = self._counters(catalogue_flusher.ERRORS)
        self.damaged = self._gauge(catalogue_flusher.DAMAGED)
        self.retention_refused = self._gauge(catalogue_flusher.RETENTION_REFUSED)
        self.segment_bytes = self._gauge(catalogue_flusher.SEGMENT)
        self.segments = self._counter(catalogue_flusher.SEGMENTS)
        self.written = self._counter(catalogue_flusher.WRITTEN)
        self.free = self._gauge(catalogue_flusher.FREE)
        self.size = self._gauge(catalogue_flusher.SIZE)
        self.memory = self._gauge(catalogue_flusher.MEMORY)
        self.memory_max = self._gauge(catalogue_flusher.MEMORY_MAX)
        self.keys = self._gauge(catalogue_flusher.KEYS)
        self.keys_max = self._gauge(catalogue_flusher.KEYS_MAX)


def _labels(row: Row) -> list[str]:
    return [each.name for each in row.labels]
