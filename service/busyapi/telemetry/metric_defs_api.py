"""The metrics of an API process."""

from busyapi.telemetry.metric_defs import (
    BUILD_INFO,
    DURABILITY_MET,
    DURABILITY_TRUSTED,
    LATENCY_BUCKETS,
    PARTITION,
    Label,
    MetricDef,
)
from busyapi.telemetry.metric_defs_audit import DELIVERIES, DROPPED

COUNT_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)

POST_ROUTES = ("/api/usages", "/api/usages/batch")
POST_STATUSES = (201, 500, 503)
"""These start at 0 for the routes above: `increase()` misses a series that starts at 1."""

REFUSAL_REASONS = (
    "ArchiveUnavailable",
    "AuditUnavailable",
    "BufferFull",
    "CredentialKeysUnavailable",
    "IdempotencyKeysFull",
    "NotSeeded",
    "Overloaded",
    "QueriesBusy",
    "RedisUnavailable",
    "OutcomeUnknown",
    "DurabilityNotMet",
    "UnknownVersion",
)
COMMITTER_FAILURE_REASONS = ("NotSeeded", "RedisUnavailable", "DurabilityNotMet")

QUERY_ROUTE = "/api/usages?patientId"
"""The route of lists, whose path is that of posts: a list takes longer than a post may."""
ROUTE = Label("route", "10: the routes of the API by pattern, and `none`")
STATUS = Label(
    "status",
    "about 20 HTTP statuses; 499: the client reset the connection; 500 includes connections that"
    " the process closed",
)

REQUESTS = MetricDef(
    "busyapi_requests",
    "counter",
    "Requests answered. Many with 503: see busyapi_refused_total for the reason.",
    (
        "BusyapiAvailabilityBurn",
        "BusyapiCredentialsRefused",
        "BusyapiTrafficGone",
        "Autoscaling and resources",
        "Overview",
        "autoscaler",
        "benchmark",
    ),
    (ROUTE, STATUS),
)
FAST_PATH_REQUESTS = MetricDef(
    "busyapi_fast_path_requests",
    "counter",
    "Posts answered by the fast path, a single usage at a third of the CPU of the route. Many take"
    " the route if clients send chunks, gzip, or headers above 4 KiB.",
    ("Autoscaling and resources", "benchmark"),
    (Label("route", "2: single usages and batches", POST_ROUTES),),
)
REQUEST_SECONDS = MetricDef(
    "busyapi_request_seconds",
    "histogram",
    "Time from a complete request to its response. High: check busyapi_commit_seconds, then CPU.",
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
    "Usages stored by this process. With HTTP batches, more than requests.",
    (
        "Overview",
        "benchmark",
    ),
)
IMPLAUSIBLE_TIMES = MetricDef(
    "busyapi_implausible_times",
    "counter",
    "Usages answered 201 with a Usage-Warning: their time is not in the years 2000 to 2099. A"
    " device sends seconds or microseconds instead of milliseconds, or its clock is not set.",
    ("Overview",),
)
REFUSED = MetricDef(
    "busyapi_refused",
    "counter",
    "Requests answered with 503. BufferFull, ArchiveUnavailable, AuditUnavailable (lookups):"
    " check the flusher."
    " NotSeeded, RedisUnavailable, DurabilityNotMet: check Redis. Overloaded: add API pods."
    " OutcomeUnknown: replies of Redis were lost. IdempotencyKeysFull: read the runbook of"
    " BusyapiIdempotencyKeysFilling. CredentialKeysUnavailable: check the provider of"
    " the JWTs. QueriesBusy: clients list usages faster than the flushers read their archives."
    " UnknownVersion (lookups): start the newer"
    " version of busyapi again.",
    (
        "BusyapiBufferFull",
        "BusyapiOverloaded",
        "Data path",
    ),
    (Label("reason", str(len(REFUSAL_REASONS)), REFUSAL_REASONS),),
)
BATCH_USAGES = MetricDef(
    "busyapi_batch_usages",
    "histogram",
    "Usages in one commit batch. Grows with the load and with the latency of Redis.",
    ("Data path",),
    buckets=COUNT_BUCKETS,
)
COMMIT_SECONDS = MetricDef(
    "busyapi_commit_seconds",
    "histogram",
    "Time from a commit to the reply of Redis. High: check the disk of Redis and the network.",
    (
        "Data path",
        "Overview",
    ),
    buckets=LATENCY_BUCKETS,
)
CONFIRM_SECONDS = MetricDef(
    "busyapi_confirm_seconds",
    "histogram",
    "Part of busyapi_commit_seconds, in the tier `replicated`: the time that a batch, which is on"
    " the disk of the primary, waits for the replicas. High: check their disks and the network.",
    ("Data path",),
    buckets=LATENCY_BUCKETS,
)
PENDING_USAGES = MetricDef(
    "busyapi_pending_usages",
    "gauge",
    "Pending usages: accepted and not yet stored in Redis. At BUSYAPI_PENDING_MAX, new ones are"
    " refused.",
    ("Data path",),
)
COMMITTERS_READY = MetricDef(
    "busyapi_committers_ready",
    "gauge",
    "1 while this process may commit to the partition. 0: see busyapi_committer_failures_total.",
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
    "Failures of a committer to get a checked connection. RedisUnavailable: check Redis. NotSeeded:"
    " check the flusher. DurabilityNotMet: /readyz names the setting.",
    (
        "BusyapiRedisUnreachable",
        "Data path",
    ),
    (Label("reason", "3", COMMITTER_FAILURE_REASONS),),
)
COMMITTED_SEQ = MetricDef(
    "busyapi_committed_seq",
    "gauge",
    "The last seq committed by this process. The maximum over all processes is the last seq"
    " issued, also while the flusher is down.",
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
    "Connections of devices and proxies. At BUSYAPI_MAX_CONNECTIONS, idle ones are closed.",
    ("Data path",),
)
CONNECTIONS_REFUSED = MetricDef(
    "busyapi_connections_refused",
    "counter",
    "Connections that got a 503 because no other one was idle. Add API pods, or find the client"
    " that opens too many.",
    ("Data path",),
)
RECEIVING_BYTES = MetricDef(
    "busyapi_receiving_bytes",
    "gauge",
    "Bytes of incomplete requests. At BUSYAPI_RECEIVING_BYTES, the slowest get 503.",
    ("Data path",),
)
ACCEPT_QUEUE_OVERFLOWS = MetricDef(
    "busyapi_accept_queue_overflows",
    "counter",
    "Connections that the kernel dropped because the process did not accept them in time, in the"
    " whole pod or host. No series without /proc/net/netstat.",
    ("Data path",),
)

CREDENTIAL_SOURCES = ("file", "keys")
CREDENTIAL_RELOAD_FAILURES = MetricDef(
    "busyapi_credential_reload_failures",
    "counter",
    "Attempts to reload credentials that failed: the last good ones stay in use. file: see the log"
    " event `credentials_not_reloaded`. keys: check the provider of the JWTs.",
    ("BusyapiCredentialsNotReloaded", "Data path"),
    (Label("source", "2", CREDENTIAL_SOURCES),),
)

JWT_SIGNATURES = MetricDef(
    "busyapi_jwt_signatures",
    "counter",
    "Signatures of JWTs that were verified, which costs more than the rest of a refusal. valid:"
    " once for each token, process and change of keys. invalid: forged tokens, or a provider with"
    " other keys.",
    ("Data path",),
    (Label("result", "2", ("valid", "invalid")),),
)
SEQUENTIAL_LOOKUPS = MetricDef(
    "busyapi_sequential_lookups",
    "counter",
    "Lookups by clients that ask for many ids close to each other, without those of usages that a"
    " client posted itself. See the log event `sequential_lookup` for the client.",
    ("BusyapiSequentialReads", "Overview"),
)

LIMIT_POLICIES = ("credential", "tenant", "address")
RATE_LIMITED = MetricDef(
    "busyapi_rate_limited",
    "counter",
    "Requests that got 429 because their client exceeds a limit: of its credential, its tenant, or"
    " its address.",
    ("Data path",),
    (Label("limit", "3", LIMIT_POLICIES),),
)
RATE_WITHDRAWAL_FAILURES = MetricDef(
    "busyapi_rate_withdrawal_failures",
    "counter",
    "Withdrawals from the buckets of rates that Redis did not execute. Meanwhile this process"
    " allows its own share: see the log event `rates_local`.",
    ("Data path",),
)

METRICS = (
    *(
        BUILD_INFO,
        DURABILITY_MET,
        DURABILITY_TRUSTED,
        REQUESTS,
        FAST_PATH_REQUESTS,
        REQUEST_SECONDS,
        USAGES,
        IMPLAUSIBLE_TIMES,
        REFUSED,
    ),
    *(
        BATCH_USAGES,
        COMMIT_SECONDS,
        CONFIRM_SECONDS,
        PENDING_USAGES,
        COMMITTERS_READY,
        COMMITTER_FAILURES,
        COMMITTED_SEQ,
    ),
    *(DROPPED, DELIVERIES),
    *(CONNECTIONS, CONNECTIONS_REFUSED, RECEIVING_BYTES, ACCEPT_QUEUE_OVERFLOWS),
    *(
        CREDENTIAL_RELOAD_FAILURES,
        JWT_SIGNATURES,
        SEQUENTIAL_LOOKUPS,
        RATE_LIMITED,
        RATE_WITHDRAWAL_FAILURES,
    ),
)
