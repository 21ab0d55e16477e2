"""The metrics of `busyapi lake`, and the flusher's metric that its alert reads."""

from busyapi.telemetry.metric_defs import BUILD_INFO, PARTITION, MetricDef

LAG_SECONDS = MetricDef(
    "busyapi_lake_lag_seconds",
    "gauge",
    "How long ago the oldest segment was finished whose usages the table lacks. 0: it has all that"
    " is finished. No series until the process has read the table. High: read the runbook.",
    ("BusyapiLakeBehind", "Data path", "benchmark"),
    (PARTITION,),
)
BEHIND_USAGES = MetricDef(
    "busyapi_lake_behind_usages",
    "gauge",
    "Usages in finished segments that the table lacks.",
    ("Data path",),
    (PARTITION,),
)
MISSING_USAGES = MetricDef(
    "busyapi_lake_missing_usages",
    "gauge",
    "Usages that the table will never get, because retention deleted them first.",
    ("BusyapiLakeUsagesMissing", "Data path"),
    (PARTITION,),
)
PROBLEMS = MetricDef(
    "busyapi_lake_problems",
    "gauge",
    "Problems of the archive that the last turn found, such as usages that cannot be read. Above 0,"
    " nothing more of the partition is taken: see the log event lake_problem.",
    ("Data path",),
    (PARTITION,),
)
SUCCEEDED_TIMESTAMP = MetricDef(
    "busyapi_lake_succeeded_timestamp_seconds",
    "gauge",
    "When the last turn without a problem ended; 0 if this process had none yet.",
    ("BusyapiLakeBehind", "Data path"),
    (PARTITION,),
)
USAGES = MetricDef(
    "busyapi_lake_usages",
    "counter",
    "Usages that this process took into the table.",
    ("Data path", "benchmark"),
)
FAILURES = MetricDef(
    "busyapi_lake_failures",
    "counter",
    "Turns that failed, for example because the catalog or the object store did not answer: see the"
    " log event lake_failed.",
    ("Data path",),
)
METRICS = (
    BUILD_INFO,
    LAG_SECONDS,
    BEHIND_USAGES,
    MISSING_USAGES,
    PROBLEMS,
    SUCCEEDED_TIMESTAMP,
    USAGES,
    FAILURES,
)

RETENTION_SECONDS = MetricDef(
    "busyapi_archive_retention_seconds",
    "gauge",
    "BUSYAPI_RETENTION_DAYS in seconds. 0: the flusher deletes nothing.",
    ("BusyapiLakeBehind",),
    (PARTITION,),
)
