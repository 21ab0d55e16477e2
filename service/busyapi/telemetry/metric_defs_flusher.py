"""The metrics of a flusher: each has its partition as a label."""

from busyapi.telemetry import metric_defs_audit, metric_defs_replicas, metric_defs_verify
from busyapi.telemetry.metric_defs import (
    BUILD_INFO,
    DURABILITY_MET,
    DURABILITY_TRUSTED,
    LATENCY_BUCKETS,
    PARTITION,
    Label,
    MetricDef,
)
from busyapi.telemetry.metric_defs_lake import RETENTION_SECONDS

FLUSH_BUCKETS = (1, 10, 100, 1000, 3000, 10000, 30000, 100000)

ARCHIVE_ERROR_KINDS = ("full", "io", "sync")
STAGES = ("read", "write", "fsync", "publish")

ISSUED_SEQ = MetricDef(
    "busyapi_issued_seq",
    "gauge",
    "The last seq issued, as the flusher last read it. Minus archived: the backlog.",
    (
        "BusyapiBufferFilling",
        "BusyapiFlusherStuck",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
ARCHIVED_SEQ = MetricDef(
    "busyapi_archived_seq",
    "gauge",
    "The last seq on the archive's disk. It must grow while there is a backlog: see /readyz.",
    (
        "BusyapiBufferFilling",
        "BusyapiFlusherStuck",
        "BusyapiTargetsMissing",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
BOUND_USAGES = MetricDef(
    "busyapi_bound_usages",
    "gauge",
    "The largest allowed backlog, issued minus archived. When it is reached, posts are refused.",
    (
        "BusyapiArchivingBurn",
        "BusyapiBufferFilling",
        "Autoscaling and resources",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
OLDEST_UNARCHIVED_SECONDS = MetricDef(
    "busyapi_oldest_unarchived_seconds",
    "gauge",
    "Age of the oldest usage of the backlog, 0 if there is none. It is the largest possible age"
    " while the flusher cannot read; /readyz names the reason.",
    (
        "BusyapiArchivingBurn",
        "Data path",
        "Overview",
        "benchmark",
    ),
    (PARTITION,),
)
FLUSHER_READY = MetricDef(
    "busyapi_flusher_ready",
    "gauge",
    "1 if the flusher has accepted the Redis server and is ready. 0 for any other reason, which"
    " /readyz names. Posts are refused only if it has not accepted the server.",
    (
        "BusyapiFlusherNotReady",
        "BusyapiRedisUnreachable",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
HALTED = MetricDef(
    "busyapi_halted",
    "gauge",
    "1 while the flusher is halted and needs an operator. /readyz says why, and what to do.",
    (
        "BusyapiFlusherHalted",
        "Data path",
        "Overview",
        "busyapi dev",
    ),
    (PARTITION,),
)
EPOCH_JUMPS = MetricDef(
    "busyapi_epoch_jumps",
    "counter",
    "Times that the flusher skipped ids that Redis may have issued and lost. Find out why it lost"
    " data.",
    (
        "BusyapiEpochJump",
        "Data path",
    ),
    (PARTITION,),
)
QUARANTINED_USAGES = MetricDef(
    "busyapi_quarantined_usages",
    "counter",
    "Unreadable usages, kept unchanged in a quarantine file. Find out what wrote them.",
    (
        "BusyapiUsagesQuarantined",
        "Data path",
    ),
    (PARTITION,),
)
FLUSH_USAGES = MetricDef(
    "busyapi_flush_usages",
    "histogram",
    "Usages in one flush. The sum counts all archived usages.",
    (
        "Data path",
        "Overview",
    ),
    (PARTITION,),
    FLUSH_BUCKETS,
)
FLUSH_SECONDS = MetricDef(
    "busyapi_flush_seconds",
    "histogram",
    "Time of a flush, from write to publish. High: see busyapi_flush_stage_seconds_total.",
    (
        "Data path",
        "Overview",
    ),
    (PARTITION,),
    LATENCY_BUCKETS,
)
FSYNC_SECONDS = MetricDef(
    "busyapi_fsync_seconds",
    "histogram",
    "Time of one fdatasync of the archive. High: the volume is slow or shared.",
    (
        "BusyapiArchiveFsyncSlow",
        "Data path",
    ),
    (PARTITION,),
    LATENCY_BUCKETS,
)
STAGE_SECONDS = MetricDef(
    "busyapi_flush_stage_seconds",
    "counter",
    "Time of the flusher by stage. The stage read includes the wait for usages.",
    ("Data path",),
    (Label("stage", "4", STAGES), PARTITION),
)
ARCHIVE_ERROR_COUNT = MetricDef(
    "busyapi_archive_errors",
    "counter",
    "Failed writes to the archive. full: grow the volume. sync: an fsync failed, check the node."
    " io: any other error, see the log.",
    (
        "BusyapiArchiveDiskFull",
        "BusyapiArchiveWriteFailing",
        "Data path",
    ),
    (Label("kind", "3", ARCHIVE_ERROR_KINDS), PARTITION),
)
DAMAGED_FILES = MetricDef(
    "busyapi_archive_damaged_files",
    "gauge",
    "Damaged files: set aside by recovery, or found by a lookup or by retention since the last"
    " recovery. Read the runbook before you move any file.",
    (
        "BusyapiArchiveDamaged",
        "Data path",
    ),
    (PARTITION,),
)
RETENTION_REFUSED = MetricDef(
    "busyapi_retention_refused",
    "gauge",
    "1 while old files are kept because clocks differ, or no usage arrived for two days; see the"
    " log. For more than a day while usages arrive: correct the clock.",
    ("Data path",),
    (PARTITION,),
)
SEGMENT_BYTES = MetricDef(
    "busyapi_segment_bytes", "gauge", "Size of the open segment.", ("Data path",), (PARTITION,)
)
SEGMENTS_FINISHED = MetricDef(
    "busyapi_segments_finished",
    "counter",
    "Segments finished because of size, age or day. Many small ones: raise BUSYAPI_SEGMENT_BYTES"
    " or _AGE.",
    ("Data path",),
    (PARTITION,),
)
WRITTEN_BYTES = MetricDef(
    "busyapi_archive_written_bytes",
    "counter",
    "Bytes written to segments. The rate times 86400 is the growth per day.",
    ("Data path",),
    (PARTITION,),
)
FREE_BYTES = MetricDef(
    "busyapi_archive_free_bytes",
    "gauge",
    "Free space of the archive volume. Grow it or set BUSYAPI_RETENTION_DAYS before it is 0.",
    (
        "BusyapiArchiveDiskFilling",
        "Data path",
    ),
    (PARTITION,),
)
SIZE_BYTES = MetricDef(
    "busyapi_archive_size_bytes",
    "gauge",
    "Size of the archive volume.",
    ("Data path",),
    (PARTITION,),
)
REDIS_MEMORY_BYTES = MetricDef(
    "busyapi_redis_memory_bytes",
    "gauge",
    "Memory that Redis uses. At its maximum, commits are refused: check the flusher, add memory.",
    (
        "BusyapiRedisMemoryHigh",
        "Data path",
    ),
    (PARTITION,),
)
REDIS_MEMORY_MAX_BYTES = MetricDef(
    "busyapi_redis_memory_max_bytes",
    "gauge",
    "maxmemory of Redis, 0 without one.",
    (
        "BusyapiRedisMemoryHigh",
        "Data path",
    ),
    (PARTITION,),
)
IDEMPOTENCY_KEYS = MetricDef(
    "busyapi_idempotency_keys",
    "gauge",
    "Known Idempotency-Keys. At the maximum, only posts with a new key are refused.",
    ("BusyapiIdempotencyKeysFilling", "Data path"),
    (PARTITION,),
)
IDEMPOTENCY_KEYS_MAX = MetricDef(
    "busyapi_idempotency_keys_max",
    "gauge",
    "Maximum of known keys: BUSYAPI_IDEMPOTENCY_KEYS, or as many as fit into half of Redis'"
    " maxmemory.",
    ("BusyapiIdempotencyKeysFilling", "Data path"),
    (PARTITION,),
)

METRICS = (
    *(
        BUILD_INFO,
        DURABILITY_MET,
        DURABILITY_TRUSTED,
        ISSUED_SEQ,
        ARCHIVED_SEQ,
        BOUND_USAGES,
        OLDEST_UNARCHIVED_SECONDS,
        FLUSHER_READY,
        HALTED,
        EPOCH_JUMPS,
        QUARANTINED_USAGES,
    ),
    *(
        FLUSH_USAGES,
        FLUSH_SECONDS,
        FSYNC_SECONDS,
        STAGE_SECONDS,
        ARCHIVE_ERROR_COUNT,
        DAMAGED_FILES,
        RETENTION_REFUSED,
    ),
    *metric_defs_verify.METRICS,
    *metric_defs_replicas.METRICS,
    RETENTION_SECONDS,
    *metric_defs_audit.FLUSHER_METRICS,
    *(
        SEGMENT_BYTES,
        SEGMENTS_FINISHED,
        WRITTEN_BYTES,
        FREE_BYTES,
        SIZE_BYTES,
        REDIS_MEMORY_BYTES,
        REDIS_MEMORY_MAX_BYTES,
        IDEMPOTENCY_KEYS,
        IDEMPOTENCY_KEYS_MAX,
    ),
)
