"""The metrics of the audit trail."""

from busyapi.telemetry.metric_defs import PARTITION, Label, MetricDef

FAILING = MetricDef(
    "busyapi_audit_failing",
    "gauge",
    "1 while the flusher cannot write its audit trail: reads are refused with"
    " BUSYAPI_AUDIT=required, or with auto (the default) if reading needs a credential."
    " See the log event audit_failed.",
    (
        "BusyapiAuditFailing",
        "Data path",
    ),
    (PARTITION,),
)
RECORDS = MetricDef(
    "busyapi_audit_records",
    "counter",
    "Entries that the flusher put on disk. One takes about 300 bytes.",
    ("Data path",),
    (PARTITION,),
)
DROPPED = MetricDef(
    "busyapi_audit_dropped",
    "counter",
    "Events that this process did not record: refusals beyond the limit, entries that the flusher"
    " refuses as invalid, or, with BUSYAPI_AUDIT=background, reads while a flusher was unavailable."
    " The next record has their number.",
    ("Data path",),
)
DELIVERIES = MetricDef(
    "busyapi_audit_deliveries",
    "counter",
    "Requests with entries of the audit trail to the flusher of a partition. failed: the entries"
    " are sent again, or their reads got 503. See the log event flusher_unreachable.",
    (
        "BusyapiAuditFailing",
        "Data path",
    ),
    (PARTITION, Label("outcome", "2", ("recorded", "failed"))),
)

FLUSHER_METRICS = (FAILING, RECORDS)
