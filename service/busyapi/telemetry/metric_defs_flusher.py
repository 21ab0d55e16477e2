"""The metrics of a flusher: each has its partition as a label."""

from busyapi.telemetry.metric_defs import (
    BUILD_INFO,
    DURABILITY_HELD,
    LATENCY_BUCKETS,
    PARTITION,
    Label,
    MetricDef,
)

FLUSH_BUCKETS = (1, 10, 100, 1000, 3000, 10000, 30000, 100000)

ARCHIVE_ERROR_KINDS = ("full", "io", "sync")
STAGES = ("read", "write", "fsync", "publish")

ISSUED_SEQ = MetricDef(
    "busyapi_issued_seq",
    "gauge",
    "The last seq given out, as the flusher last read it. Less archived is what waits.",
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
    "The last seq that is safely in the archive. Stands still while usages wait: see /readyz.",
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
    "Most usages between issued and archived; when they are reached, posts are refused.",
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
    "Age of the oldest usage that may not be archived, 0 if none. Grows also while the flusher"
    " cannot look; /readyz says why.",
    (
        "BusyapiArchivingBurn",
        "Data path",
        "Overview",
        "benchmark",
    ),
    (PARTITION,),
)
SEEDED = MetricDef(
    "busyapi_seeded",
    "gauge",
    "1 while this flusher vouches for the Redis server. 0: nothing new is stored; see /readyz.",
    (
        "BusyapiPartitionNotSeeded",
        "Data path",
        "Overview",
    ),
    (PARTITION,),
)
HALTED = MetricDef(
    "busyapi_halted",
    "gauge",
    "1 while only a person may go on, for usages may be gone; /readyz says what to do.",
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
    "Times that ids jumped past what Redis may have lost. Find out why Redis lost it.",
    (
        "BusyapiEpochJump",
        "Data path",
    ),
    (PARTITION,),
)
QUARANTINED_USAGES = MetricDef(
    "busyapi_quarantined_usages",
    "counter",
    "Usages that could not be read, kept as they came in a quarantine file. Find what wrote them.",
    (
        "BusyapiUsagesQuarantined",
        "Data path",
    ),
    (PARTITION,),
)
FLUSH_USAGES = MetricDef(
    "busyapi_flush_usages",
    "histogram",
    "Usages in one flush; its sum is all that were archived.",
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
    "From gathered usages to their being published. High: see busyapi_flush_stage_seconds_total.",
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
    "One fdatasync of the archive. High: the volume is slow or shared.",
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
    "Where the flusher's time goes; read has the waiting for usages in it.",
    ("Data path",),
    (Label("stage", "4", STAGES), PARTITION),
)
ARCHIVE_ERROR_COUNT = MetricDef(
    "busyapi_archive_errors",
    "counter",
    "Failed tries to write the archive. full: make the volume larger; sync: the disk failed an"
    " fsync, look at its node; io: any other, the log says which.",
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
    "Files found damaged: set aside by recovery, or met by a lookup or by retention since the last"
    " one. See the runbook before anything is moved.",
    (
        "BusyapiArchiveDamaged",
        "Data path",
    ),
    (PARTITION,),
)
RETENTION_REFUSED = MetricDef(
    "busyapi_retention_refused",
    "gauge",
    "1 while old files are not deleted because clocks disagree, or no usage came for two days; the"
    " log says which. For longer than a day with usages coming in: correct the clock.",
    ("Data path",),
    (PARTITION,),
)
SEGMENT_BYTES = MetricDef(
    "busyapi_segment_bytes", "gauge", "Size of the open segment.", ("Data path",), (PARTITION,)
)
SEGMENTS_FINISHED = MetricDef(
    "busyapi_segments_finished",
    "counter",
    "Segments that were finished for their size, age or day. Many small ones: raise"
    " BUSYAPI_SEGMENT_BYTES or _AGE.",
    ("Data path",),
    (PARTITION,),
)
WRITTEN_BYTES = MetricDef(
    "busyapi_archive_written_bytes",
    "counter",
    "Bytes written to segments; times 86400 a second, what a day takes of the volume.",
    ("Data path",),
    (PARTITION,),
)
FREE_BYTES = MetricDef(
    "busyapi_archive_free_bytes",
    "gauge",
    "Free space of the archive volume. Make it larger, or set BUSYAPI_RETENTION_DAYS, before 0.",
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
    "Memory that Redis uses. At its maximum it refuses commits: see to the flusher, then add some.",
    (
        "BusyapiRedisMemoryHigh",
        "Data path",
    ),
    (PARTITION,),
)
REDIS_MEMORY_MAX_BYTES = MetricDef(
    "busyapi_redis_memory_max_bytes",
    "gauge",
    "maxmemory of Redis, 0 when it has none.",
    (
        "BusyapiRedisMemoryHigh",
        "Data path",
    ),
    (PARTITION,),
)
IDEMPOTENCY_KEYS = MetricDef(
    "busyapi_idempotency_keys",
    "gauge",
    "Idempotency-Keys that are known. At their maximum a post with a new key is refused, no other.",
    ("BusyapiIdempotencyKeysFilling", "Data path"),
    (PARTITION,),
)
IDEMPOTENCY_KEYS_MAX = MetricDef(
    "busyapi_idempotency_keys_max",
    "gauge",
    "Most Idempotency-Keys: BUSYAPI_IDEMPOTENCY_KEYS, or what half of Redis' maxmemory holds.",
    ("BusyapiIdempotencyKeysFilling", "Data path"),
    (PARTITION,),
)

METRICS = (
    *(
        BUILD_INFO,
        DURABILITY_HELD,
        ISSUED_SEQ,
        ARCHIVED_SEQ,
        BOUND_USAGES,
        OLDEST_UNARCHIVED_SECONDS,
        SEEDED,
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
