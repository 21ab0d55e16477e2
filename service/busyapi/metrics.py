"""The catalogue: every metric, and who reads it.

One registry a process. What happens for each request is tallied in plain integers and turned
into metrics at the scrape: a prometheus_client call for each costs a tenth of a core at a million
a minute. Labels are bounded: routes and reasons are those of the code, statuses those of HTTP.
"""

import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from busyapi.errors import BusyapiError

# They are a series more for each counter and histogram, and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNT_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
FLUSH_BUCKETS = (1, 10, 100, 1000, 3000, 10000, 30000, 100000)


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


class Requests(Collector):
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self._statuses: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Tally] = {}

    def done(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._statuses[route, status] += 1
        tally = self._seconds.get(route)
        if tally is None:
            tally = self._seconds[route] = Tally(LATENCY_BUCKETS)
        tally.add(seconds)

    def collect(self) -> Iterable[Metric]:
        """Turn the tallies into metrics."""
        # Read by the autoscaler (requests a second a pod), the availability objective, Overview.
        total = CounterMetricFamily(
            "busyapi_requests", "Requests answered.", labels=["route", "status"]
        )
        for (route, status), count in list(self._statuses.items()):
            total.add_metric([route, str(status)], count)
        yield total
        # Read by the latency objective and the Overview heatmap.
        took = HistogramMetricFamily(
            "busyapi_request_seconds",
            "From a whole request to its answer, in seconds.",
            labels=["route"],
        )
        for route, tally in list(self._seconds.items()):
            took.add_metric([route], tally.buckets(), tally.total)
        yield took


class Metrics:
    """What every process has."""

    def __init__(self, role: str, tier: str) -> None:
        self.registry = CollectorRegistry()
        # Read by Overview: which versions run.
        build = Gauge(
            "busyapi_build_info",
            "1; the labels say what runs.",
            ["version", "python", "role"],
            registry=self.registry,
        )
        build.labels(version("busyapi"), platform.python_version(), role).set(1)
        # Read by the alert on a tier that is not the one wanted.
        durability = Gauge(
            "busyapi_durability_tier",
            "1; the label is the tier a 201 stands for.",
            ["tier"],
            registry=self.registry,
        )
        durability.labels(tier).set(1)


class ApiMetrics(Metrics):
    """What an API process measures; it is the observer of its lanes."""

    def __init__(self, tier: str) -> None:
        super().__init__("api", tier)
        self.requests = Requests()
        self.registry.register(self.requests)
        # Read by Overview: usages a second, which batches make more than requests.
        self.usages = PrometheusCounter(
            "busyapi_usages", "Usages that this process has stored.", registry=self.registry
        )
        # Read by the alerts on a full buffer and on overload; Data path.
        self.refused = PrometheusCounter(
            "busyapi_refused",
            "Requests answered with 503, by reason.",
            ["reason"],
            registry=self.registry,
        )
        # Read by Data path: the group commit at work.
        self.batch = Histogram(
            "busyapi_batch_usages",
            "Usages in one commit.",
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        # Read by Data path: Redis and its fsync, as the lanes see them.
        self.commit = Histogram(
            "busyapi_commit_seconds",
            "From sending a commit to its answer, in seconds.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        # Read by the alert on overload; Data path.
        self.pending = Gauge(
            "busyapi_pending_usages",
            "Usages that wait in this process or are under way.",
            registry=self.registry,
        )
        # Read by the alert on unseeded partitions.
        self.lanes = Gauge(
            "busyapi_lanes_ready",
            "Lanes of this process that may commit.",
            registry=self.registry,
        )
        # Read by Data path: connections lost, by what was found.
        self.lost = PrometheusCounter(
            "busyapi_lane_failures",
            "Times a lane found no checked connection, by reason.",
            ["reason"],
            registry=self.registry,
        )

    def committed(self, usages: int, seconds: float) -> None:
        """Count a stored call; a repeat counts 0 usages."""
        self.commit.observe(seconds)
        if usages:
            self.batch.observe(usages)
            self.usages.inc(usages)

    def reconnecting(self, error: BusyapiError) -> None:
        """Count a lane's failure."""
        self.lost.labels(type(error).__name__).inc()


class FlusherMetrics(Metrics):
    """What a flusher measures, all for its one partition."""

    def __init__(self, tier: str) -> None:
        super().__init__("flusher", tier)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(f"busyapi_{name}", meaning, registry=self.registry)

        def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> PrometheusCounter:
            return PrometheusCounter(f"busyapi_{name}", meaning, labels, registry=self.registry)

        def histogram(name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"busyapi_{name}", meaning, buckets=buckets, registry=self.registry)

        # Read by the alert on a filling buffer (time left to the bound) and Data path.
        self.issued = gauge("issued_seq", "The last seq given out.")
        self.archived = gauge("archived_seq", "The last seq that is safely in the archive.")
        self.bound = gauge("bound_usages", "Most usages between issued and archived.")
        # Read by the archiving objective and the alert on a stuck flusher.
        self.oldest = gauge(
            "oldest_unarchived_seconds", "Age of the oldest usage read but not archived, 0 if none."
        )
        # Read by the alert on an unseeded partition.
        self.seeded = gauge("seeded", "1 while this flusher vouches for the Redis server.")
        # Read by the alert on suspected loss.
        self.halted = gauge("halted", "1 while only a person may go on; /readyz says why.")
        # Read by the alert on an epoch jump.
        self.jumps = counter("epoch_jumps", "Times ids jumped past what may have been lost.")
        # Read by the alert on quarantined usages.
        self.quarantined = counter("quarantined_usages", "Usages that could not be rendered.")
        # Read by Data path: flusher stages.
        self.flush_usages = histogram("flush_usages", "Usages in one flush.", FLUSH_BUCKETS)
        self.flush_seconds = histogram(
            "flush_seconds",
            "Rendering, writing and fsync of one flush, in seconds.",
            LATENCY_BUCKETS,
        )
        # Read by the alert on a slow disk; Data path.
        self.fsync_seconds = histogram(
            "fsync_seconds", "One fdatasync of the archive, in seconds.", LATENCY_BUCKETS
        )
        # Read by the alert on failing fsyncs and a full volume.
        self.errors = counter("archive_errors", "Failed writes, by kind.", ["kind"])
        # Read by the alert on a damaged archive.
        self.damaged = counter("archive_damaged_files", "Files that recovery set aside.")
        # Read by Data path.
        self.segment_bytes = gauge("segment_bytes", "Size of the open segment.")
        self.written = counter("archive_written_bytes", "Bytes written to segments.")
        # Read by the alert on a filling volume (days left).
        self.free = gauge("archive_free_bytes", "Free space of the archive volume.")
