"""The metrics of an API process."""

from busyapi.catalogue import BUILD, HELD, LATENCY_BUCKETS, PARTITION, Label, Row

COUNT_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)

POST_ROUTES = ("/api/usages", "/api/usages/batch")
POST_STATUSES = (201, 500, 503)
"""There at 0 from the start for these routes: `increase()` misses a series that is born at 1."""

REFUSALS = (
    "ArchiveAway",
    "BufferFull",
    "KeysFull",
    "NotSeeded",
    "Overloaded",
    "RedisAway",
    "StoredUnknown",
    "TooWeak",
    "UnknownVersion",
)
LANE_FAILURES = ("NotSeeded", "RedisAway", "TooWeak")

ROUTE = Label("route", "9: the routes of the API by pattern, and `none`")
STATUS = Label(
    "status",
    "about 20 of HTTP; 499 when the device reset its connection, 500 also when we cut one off",
)

REQUESTS = Row(
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
REQUEST_SECONDS = Row(
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
USAGES = Row(
    "busyapi_usages",
    "counter",
    "Usages that this process has stored; batches make it more than requests.",
    (
        "Overview",
        "benchmark",
    ),
)
REFUSED = Row(
    "busyapi_refused",
    "counter",
    "Requests answered with 503. BufferFull and ArchiveAway (a lookup): see to the flusher;"
    " NotSeeded, RedisAway, TooWeak: to Redis; Overloaded: more API pods; StoredUnknown: answers"
    " of Redis were lost; UnknownVersion (a lookup): start the newer busyapi again.",
    (
        "BusyapiBufferFull",
        "BusyapiOverloaded",
        "Data path",
    ),
    (Label("reason", "9", REFUSALS),),
)
BATCH = Row(
    "busyapi_batch_usages",
    "histogram",
    "Usages in one commit. It grows with the load, and with the time that Redis takes.",
    ("Data path",),
    buckets=COUNT_BUCKETS,
)
COMMIT = Row(
    "busyapi_commit_seconds",
    "histogram",
    "From sending a commit to Redis to its answer. High: the disk of Redis, or the network.",
    (
        "Data path",
        "Overview",
    ),
    buckets=LATENCY_BUCKETS,
)
PENDING = Row(
    "busyapi_pending_usages",
    "gauge",
    "Usages that wait in this process or are under way; at BUSYAPI_PENDING_MAX it refuses.",
    ("Data path",),
)
LANES = Row(
    "busyapi_lanes_ready",
    "gauge",
    "1 while this process may commit to the partition. 0: busyapi_lane_failures_total says why.",
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
LANE_FAILED = Row(
    "busyapi_lane_failures",
    "counter",
    "Times that a lane found no checked connection. RedisAway: is Redis up; NotSeeded: is the"
    " flusher; TooWeak: /readyz says which setting.",
    ("Data path",),
    (Label("reason", "3", LANE_FAILURES),),
)
COMMITTED = Row(
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
CONNECTIONS = Row(
    "busyapi_connections",
    "gauge",
    "Connections of devices and proxies; at BUSYAPI_MAX_CONNECTIONS quiet ones make room.",
    ("Data path",),
)
CONNECTIONS_REFUSED = Row(
    "busyapi_connections_refused",
    "counter",
    "Connections that got 503 because all others were at work. More API pods, or a client that"
    " opens too many.",
    ("Data path",),
)
RECEIVING = Row(
    "busyapi_receiving_bytes",
    "gauge",
    "Bytes of requests that are arriving; at BUSYAPI_RECEIVING_BYTES the slowest get 503.",
    ("Data path",),
)
ACCEPT_QUEUE = Row(
    "busyapi_accept_queue_overflows",
    "counter",
    "Connections that the kernel dropped because the process did not accept them in time; of the"
    " whole pod, or host. No series where /proc/net/netstat does not tell.",
    ("Data path",),
)

ROWS = (
    *(BUILD, HELD, REQUESTS, REQUEST_SECONDS, USAGES, REFUSED),
    *(BATCH, COMMIT, PENDING, LANES, LANE_FAILED, COMMITTED),
    *(CONNECTIONS, CONNECTIONS_REFUSED, RECEIVING, ACCEPT_QUEUE),
)
