"""The metrics of a flusher's verification of its archive."""

from busyapi.telemetry.metric_defs import PARTITION, MetricDef

VERIFIED_TIMESTAMP = MetricDef(
    "busyapi_archive_verified_timestamp_seconds",
    "gauge",
    "When the last complete verification of the archive ended. If there was no verification yet:"
    " when the flusher started. Old: read the runbook.",
    (
        "BusyapiArchiveNotVerified",
        "Data path",
    ),
    (PARTITION,),
)
VERIFY_PROBLEMS = MetricDef(
    "busyapi_archive_verify_problems",
    "gauge",
    "Problems that the last verification found. Above 0: read the runbook before you move any"
    " file.",
    (
        "BusyapiArchiveDamaged",
        "Data path",
    ),
    (PARTITION,),
)
VERIFY_SECONDS = MetricDef(
    "busyapi_archive_verify_seconds",
    "gauge",
    "Duration of the last verification by this process. Near the interval: raise"
    " BUSYAPI_VERIFY_INTERVAL.",
    ("Data path",),
    (PARTITION,),
)
VERIFY_INTERVAL = MetricDef(
    "busyapi_archive_verify_interval_seconds",
    "gauge",
    "BUSYAPI_VERIFY_INTERVAL. 0: the flusher never verifies its archive.",
    ("BusyapiArchiveNotVerified",),
    (PARTITION,),
)

METRICS = (VERIFIED_TIMESTAMP, VERIFY_PROBLEMS, VERIFY_SECONDS, VERIFY_INTERVAL)
