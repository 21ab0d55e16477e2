"""The metrics of a process, built from the catalogue.

A process has one registry. Requests are counted in plain integers, which become metrics at the
scrape: one prometheus_client call per request costs a tenth of a core at a million requests a
minute. The catalogue lists the values of labels; counters by reason all exist from the start.
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

from busyapi.errors import BusyapiError
from busyapi.telemetry import (
    metric_defs,
    metric_defs_api,
    metric_defs_audit,
    metric_defs_flusher,
    metric_defs_lake,
    metric_defs_replicas,
    metric_defs_verify,
)
from busyapi.telemetry.accept_queue import AcceptQueue
from busyapi.telemetry.metric_defs import PARTITION, MetricDef

# They add a series to each counter and histogram that nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class HistogramTally:
    """A histogram of plain integers. `RouteTally.record` adds to it."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bucket_bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def cumulative_buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, as Prometheus expects."""
        rows, running = [], 0
        for bound, count in zip((*self.bucket_bounds, float("inf")), self.counts, strict=True):
            running += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
        return rows


class RouteTally:
    """Counts of the answered requests of one route."""

    def __init__(self, statuses: Iterable[int] = ()) -> None:
        self.statuses = dict.fromkeys(statuses, 0)
        self.seconds = HistogramTally(metric_defs.LATENCY_BUCKETS)

    def record(self, status: int, seconds: float) -> None:
        """Count one request."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        tally = self.seconds
        tally.counts[bisect_left(tally.bucket_bounds, seconds)] += 1
        tally.total += seconds

    def add(self, other: "RouteTally") -> None:
        """Add the requests of another tally."""
        for status, count in list(other.statuses.items()):
            self.statuses[status] = self.statuses.get(status, 0) + count
        counts = self.seconds.counts
        for index, count in enumerate(other.seconds.counts):
            counts[index] += count
        self.seconds.total += other.seconds.total


class RequestCollector(Collector):
    """Requests by route and status, and their durations."""

    def __init__(self) -> None:
        self.fast_path = {route: RouteTally() for route in metric_defs_api.POST_ROUTES}
        """Posts that the fast path answered; their routes do not count them."""
        self._routes = {
            route: RouteTally(metric_defs_api.POST_STATUSES)
            for route in metric_defs_api.POST_ROUTES
        }

    def route(self, route: str) -> RouteTally:
        """Return the tally of one route."""
        return self._routes.get(route) or self._routes.setdefault(route, RouteTally())

    def collect(self) -> Iterable[Metric]:
        """Convert the tallies to metrics."""
        row = metric_defs_api.REQUESTS
        total = CounterMetricFamily(row.name, row.help, labels=_all_label_names(row))
        routes = []
        for route, tally in list(self._routes.items()):
            merged = RouteTally()
            merged.add(tally)
            if route in self.fast_path:
                merged.add(self.fast_path[route])
            routes.append((route, merged))
        for route, tally in routes:
            for status, count in tally.statuses.items():
                total.add_metric([route, str(status)], count)
        yield total
        row = metric_defs_api.FAST_PATH_REQUESTS
        fast = CounterMetricFamily(row.name, row.help, labels=_all_label_names(row))
        for route, tally in self.fast_path.items():
            fast.add_metric([route], sum(tally.statuses.values()))
        yield fast
        row = metric_defs_api.REQUEST_SECONDS
        durations = HistogramMetricFamily(
            row.name, row.help, labels=_all_label_names(row), unit=row.unit
        )
        for route, tally in routes:
            seconds = tally.seconds
            durations.add_metric([route], seconds.cumulative_buckets(), seconds.total)
        yield durations


class Metrics:
    """What every role has: a registry, and the constructors of metrics."""

    def __init__(self, role: str, partition: int | None = None) -> None:
        self.registry = CollectorRegistry()
        self._partition = [] if partition is None else [str(partition)]
        build = self._gauge(
            metric_defs.BUILD_INFO, [version("busyapi"), platform.python_version(), role]
        )
        build.set(1)

    def choose_renderer(self, accept: str) -> tuple[Callable[[], bytes], str]:
        """Return a renderer and its content type: OpenMetrics if the client accepts it."""
        encode, content_type = choose_encoder(accept)
        return partial(encode, self.registry), content_type

    def _label_names(self, definition: MetricDef) -> list[str]:
        # Each metric of a flusher has its partition as the last label.
        names = [label.name for label in definition.labels if label != PARTITION]
        return names + [PARTITION.name] * len(self._partition)

    def _gauge(self, definition: MetricDef, values: Sequence[str] = ()) -> Gauge:
        gauge = Gauge(
            definition.name,
            definition.help,
            self._label_names(definition),
            unit=definition.unit,
            registry=self.registry,
        )
        return gauge.labels(*values, *self._partition) if values or self._partition else gauge

    def _counter(self, definition: MetricDef) -> PrometheusCounter:
        counter = self._counter_family(definition)
        return counter.labels(*self._partition) if self._partition else counter

    def _counters(self, definition: MetricDef) -> dict[str, PrometheusCounter]:
        """Return a counter for each value of the first label."""
        family = self._counter_family(definition)
        return {
            value: family.labels(value, *self._partition) for value in definition.labels[0].values
        }

    def _counter_family(self, definition: MetricDef) -> PrometheusCounter:
        return PrometheusCounter(
            definition.name,
            definition.help,
            self._label_names(definition),
            unit=definition.unit,
            registry=self.registry,
        )

    def _histogram(self, definition: MetricDef) -> Histogram:
        histogram = Histogram(
            definition.name,
            definition.help,
            self._label_names(definition),
            unit=definition.unit,
            registry=self.registry,
            buckets=definition.buckets,
        )
        return histogram.labels(*self._partition) if self._partition else histogram


class RedisMetrics(Metrics):
    """What the roles have that use Redis."""

    def __init__(self, role: str, tier: str, partition: int | None = None) -> None:
        super().__init__(role, partition)
        self.durability_met = self._gauge(metric_defs.DURABILITY_MET, [tier])
        self.durability_met.set(1)
        self.durability_trusted = self._gauge(metric_defs.DURABILITY_TRUSTED)


class ApiMetrics(RedisMetrics):
    """The metrics of an API process, which observe its committers."""

    def __init__(self, tier: str) -> None:
        super().__init__("api", tier)
        self.requests = RequestCollector()
        self.registry.register(self.requests)
        self.usages = self._counter(metric_defs_api.USAGES)
        self.implausible_times = self._counter(metric_defs_api.IMPLAUSIBLE_TIMES)
        self.refused = self._counters(metric_defs_api.REFUSED)
        self.batch_usages = self._histogram(metric_defs_api.BATCH_USAGES)
        self.commit_seconds = self._histogram(metric_defs_api.COMMIT_SECONDS)
        self.confirm_seconds = self._histogram(metric_defs_api.CONFIRM_SECONDS)
        self.pending_usages = self._gauge(metric_defs_api.PENDING_USAGES)
        self.committers_ready = self._by_partition(metric_defs_api.COMMITTERS_READY)
        self.last_seq = self._by_partition(metric_defs_api.COMMITTED_SEQ)
        self.committer_failures = self._counters(metric_defs_api.COMMITTER_FAILURES)
        self.connections = self._gauge(metric_defs_api.CONNECTIONS)
        self.connections_refused = self._counter(metric_defs_api.CONNECTIONS_REFUSED)
        self.receiving_bytes = self._gauge(metric_defs_api.RECEIVING_BYTES)
        self.credential_reload_failures = self._counters(metric_defs_api.CREDENTIAL_RELOAD_FAILURES)
        self.audit_dropped = self._counter(metric_defs_audit.DROPPED)
        row = metric_defs_audit.DELIVERIES
        self.audit_deliveries = PrometheusCounter(
            row.name, row.help, _all_label_names(row), registry=self.registry
        )
        self.jwt_signatures = self._counters(metric_defs_api.JWT_SIGNATURES)
        self.sequential_lookups = self._counter(metric_defs_api.SEQUENTIAL_LOOKUPS)
        self.rate_limited = self._counters(metric_defs_api.RATE_LIMITED)
        self.rate_withdrawal_failures = self._counter(metric_defs_api.RATE_WITHDRAWAL_FAILURES)
        self.registry.register(AcceptQueue(metric_defs_api.ACCEPT_QUEUE_OVERFLOWS))

    def _by_partition(self, definition: MetricDef) -> Gauge:
        labels = [PARTITION.name]
        return Gauge(
            definition.name, definition.help, labels, unit=definition.unit, registry=self.registry
        )

    def make_delivery_counter(self, partition: int) -> Callable[[str], None]:
        """Return a function that counts a delivery to a partition's audit trail by its outcome."""
        (outcomes,) = (label.values for label in metric_defs_audit.DELIVERIES.labels[1:])
        counters = {
            outcome: self.audit_deliveries.labels(str(partition), outcome) for outcome in outcomes
        }
        return lambda outcome: counters[outcome].inc()

    def record_commit(self, usages: int, seconds: float) -> None:
        """Count a commit. A retry has 0 usages."""
        self.commit_seconds.observe(seconds)
        if usages:
            self.batch_usages.observe(usages)
            self.usages.inc(usages)

    def record_confirmation(self, seconds: float) -> None:
        """Observe how long a batch that the primary had stored waited for its replicas."""
        self.confirm_seconds.observe(seconds)

    def record_disconnect(self, error: BusyapiError) -> None:
        """Count a failure of a committer."""
        self.committer_failures[type(error).__name__].inc()


class FlusherMetrics(RedisMetrics):
    """The metrics of a flusher, all for its partition."""

    def __init__(self, tier: str, partition: int = 0) -> None:
        super().__init__("flusher", tier, partition)
        self.issued_seq = self._gauge(metric_defs_flusher.ISSUED_SEQ)
        self.archived_seq = self._gauge(metric_defs_flusher.ARCHIVED_SEQ)
        self.bound_usages = self._gauge(metric_defs_flusher.BOUND_USAGES)
        self.oldest_unarchived_seconds = self._gauge(metric_defs_flusher.OLDEST_UNARCHIVED_SECONDS)
        self.replicas_confirming = self._gauge(metric_defs_replicas.REPLICAS_CONFIRMING)
        self.replicas_expected = self._gauge(metric_defs_replicas.REPLICAS_EXPECTED)
        self.failover_impossible = self._gauge(metric_defs_replicas.FAILOVER_IMPOSSIBLE)
        self.flusher_ready = self._gauge(metric_defs_flusher.FLUSHER_READY)
        self.halted = self._gauge(metric_defs_flusher.HALTED)
        self.epoch_jumps = self._counter(metric_defs_flusher.EPOCH_JUMPS)
        self.quarantined_usages = self._counter(metric_defs_flusher.QUARANTINED_USAGES)
        self.flush_usages = self._histogram(metric_defs_flusher.FLUSH_USAGES)
        self.flush_seconds = self._histogram(metric_defs_flusher.FLUSH_SECONDS)
        self.fsync_seconds = self._histogram(metric_defs_flusher.FSYNC_SECONDS)
        self.stage_seconds = self._counters(metric_defs_flusher.STAGE_SECONDS)
        self.archive_errors = self._counters(metric_defs_flusher.ARCHIVE_ERROR_COUNT)
        self.damaged_files = self._gauge(metric_defs_flusher.DAMAGED_FILES)
        self.verified_timestamp_seconds = self._gauge(metric_defs_verify.VERIFIED_TIMESTAMP)
        self.verify_problems = self._gauge(metric_defs_verify.VERIFY_PROBLEMS)
        self.verify_seconds = self._gauge(metric_defs_verify.VERIFY_SECONDS)
        self.verify_interval_seconds = self._gauge(metric_defs_verify.VERIFY_INTERVAL)
        self.audit_failing = self._gauge(metric_defs_audit.FAILING)
        self.audit_records = self._counter(metric_defs_audit.RECORDS)
        self.retention_refused = self._gauge(metric_defs_flusher.RETENTION_REFUSED)
        self.retention_seconds = self._gauge(metric_defs_lake.RETENTION_SECONDS)
        self.segment_bytes = self._gauge(metric_defs_flusher.SEGMENT_BYTES)
        self.segments_finished = self._counter(metric_defs_flusher.SEGMENTS_FINISHED)
        self.written_bytes = self._counter(metric_defs_flusher.WRITTEN_BYTES)
        self.volume_free_bytes = self._gauge(metric_defs_flusher.FREE_BYTES)
        self.volume_size_bytes = self._gauge(metric_defs_flusher.SIZE_BYTES)
        self.redis_memory_bytes = self._gauge(metric_defs_flusher.REDIS_MEMORY_BYTES)
        self.redis_memory_max_bytes = self._gauge(metric_defs_flusher.REDIS_MEMORY_MAX_BYTES)
        self.idempotency_keys = self._gauge(metric_defs_flusher.IDEMPOTENCY_KEYS)
        self.idempotency_keys_max = self._gauge(metric_defs_flusher.IDEMPOTENCY_KEYS_MAX)


def _all_label_names(definition: MetricDef) -> list[str]:
    return [label.name for label in definition.labels]
