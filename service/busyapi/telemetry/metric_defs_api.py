"""The metrics of an API process."""

from busyapi.telemetry.metric_defs import (
    BUILD_INFO,
    DURABILITY_HELD,
    LATENCY_BUCKETS,
    PARTITION,
    Label,
    MetricDef,
)

COUNT_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)

POST_ROUTES = ("/api/usages", "/api/usages/batch")
POST_STATUSES = (201, 500, 503)
"""There at 0 from the start for these routes: `increase()` misses a series that is born at 1."""

REFUSAL_REASONS = (
    "ArchiveUnavailable",
    "BufferFull",
    "IdempotencyKeysFull",
    "NotSeeded",
    "Overloaded",
    "RedisUnavailable",
    "OutcomeUnknown",
    "DurabilityNotMet",
    "UnknownVersion",
)
COMMITTER_FAILURE_REASONS = ("NotSeeded", "RedisUnavailable", "DurabilityNotMet")

ROUTE = Label("route", "9: the routes of the API by pattern, and `none`")
STATUS = Label(
    "status",
    "about 20 of HTTP; 499 when the device reset its connection, 500 also when we cut one off",
)

REQUESTS = MetricDef(
    "busyapi_requests",
    "counter",
    "Requests answered. Many of 503: look at busyapi_refused_total for why.",
    (
        "BusyapiAvailabilityBurn",
        "Autoscaling and resources",
        "Overview",
        "autoscaler",
        "benchmark",
    ),
    (ROUTE, STATUS),
)
REQUEST_SECONDS = MetricDef(
    "busyapi_request_seconds",
    "histogram",
    "From a whole request to its answer. High: compare busyapi_commit_seconds, then the CPU.",
    (
        "BusyapiLatencyBurn",
        "Overview",
    ),
    (ROUTE,),
    LATENCY_BUCKETS,
)
USAGES = MetricDef(
    "busyapi_usages",
    "counter",
    "Usages that this process has stored; batches make it more than requests.",
    (
        "Overview",
        "benchmark",
    ),
)
REFUSED = MetricDef(
    "busyapi_refused",
    "counter",
    "Requests answered with 503. BufferFull and ArchiveUnavailable (a lookup): see to the flusher;"
    " NotSeeded, RedisUnavailable, DurabilityNotMet: to Redis; Overloaded: more API pods;"
    " OutcomeUnknown: answers of Redis were lost; UnknownVersion (a lookup): start the newer"
    " busyapi again.",
    (
        "BusyapiBufferFull",
        "BusyapiOverloaded",
        "Data path",
    ),
    (Label("reason", "9", REFUSAL_REASONS),),
)
BATCH_USAGES = MetricDef(
    "busyapi_batch_usages",
    "histogram",
    "Usages in one commit. It grows with the load, and with the time that Redis takes.",
    ("Data path",),
    buckets=COUNT_BUCKETS,
)
COMMIT_SECONDS = MetricDef(
    "busyapi_commit_seconds",
    "histogram",
    "From sending a commit to Redis to its answer. High: the disk of Redis, or the network.",
    (
        "Data path",
        "Overview",
    ),
    buckets=LATENCY_BUCKETS,
)
PENDING_USAGES = MetricDef(
    "busyapi_pending_usages",
    "gauge",
    "Usages that wait in this process or are under way; at BUSYAPI_PENDING_MAX it refuses.",
    ("Data path",),
)
COMMITTERS_READY = MetricDef(
    "busyapi_committers_ready",
    "gauge",
    "1 while this process may commit to the partition. 0: busyapi_committer_failures_total says"
    " why.",
    (
        "BusyapiArchivingBurn",
        "BusyapiRedisUnreachable",
        "BusyapiTargetsMissing",
        "Data path",
        "Overview",
        "busyapi dev",
    ),
    (PARTITION,),
)
COMMITTER_FAILURES = MetricDef(
    "busyapi_committer_failures",
    "counter",
    "Times that a committer found no checked connection. RedisUnavailable: is Redis up; NotSeeded:"
    " is the flusher; DurabilityNotMet: /readyz says which setting.",
    ("Data path",),
    (Label("reason", "3", COMMITTER_FAILURE_REASONS),),
)
COMMITTED_SEQ = MetricDef(
    "busyapi_committed_seq",
    "gauge",
    "The last seq that this process was given. The largest of all processes is how far ids are,"
    " also while the flusher is away.",
    (
        "BusyapiBufferFilling",
        "BusyapiFlusherStuck",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
CONNECTIONS = MetricDef(
    "busyapi_connections",
    "gauge",
    "Connections of devices and proxies; at BUSYAPI_MAX_CONNECTIONS quiet ones make room.",
    ("Data path",),
)
CONNECTIONS_REFUSED = MetricDef(
    "busyapi_connections_refused",
    "counter",
    "Connections that got 503 because all others were at work. More API pods, or a client that"
    " opens too many.",
    ("Data path",),
)
RECEIVING_BYTES = MetricDef(
    "busyapi_receiving_bytes",
    "gauge",
    "Bytes of requests that are arriving; at BUSYAPI_RECEIVING_BYTES the slowest get 503.",
    ("Data path",),
)
ACCEPT_QUEUE_OVERFLOWS = MetricDef(
    "busyapi_accept_queue_overflows",
    "counter",
    "Connections that the kernel dropped because the process did not accept them in time; of the"
    " whole pod, or host. No series where /proc/net/netstat does not tell.",
    ("Data path",),
)

METRICS = (
    *(BUILD_INFO, DURABILITY_HELD, REQUESTS, REQUEST_SECONDS, USAGES, REFUSED),
    *(
        BATCH_USAGES,
        COMMIT_SECONDS,
        PENDING_USAGES,
        COMMITTERS_READY,
        COMMITTER_FAILURES,
        COMMITTED_SEQ,
    ),
    *(CONNECTIONS, CONNECTIONS_REFUSED, RECEIVING_BYTES, ACCEPT_QUEUE_OVERFLOWS),
)
