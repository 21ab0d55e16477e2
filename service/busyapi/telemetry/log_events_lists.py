"""The log events of lists of usages."""

from busyapi.telemetry.log_event import LogEvent

LIST_EVENTS = (
    LogEvent(
        "query_failed",
        "warning",
        ("error", "request_id"),
        "no list from the archive: the file in `error` is damaged, or the reader ended or hangs",
        "for ArchiveDamaged, the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent(
        "filter_not_made",
        "warning",
        ("detail",),
        "a finished segment gets no filter of its patients until the flusher starts again: lists"
        " read all of it; `detail` names the segment and says why, as that it is damaged",
        "`busyapi archive verify` says what is damaged; then the runbook of BusyapiArchiveDamaged",
    ),
)
