"""The log events of the audit trail, and of the port and the files that protect it."""

from busyapi.telemetry.log_event import NO_ACTION, LogEvent

AUDIT_EVENTS = (
    LogEvent(
        "archive_port_open",
        "warning",
        ("port",),
        "BUSYAPI_ARCHIVE_PORT serves every process that can connect: there is no shared secret and"
        " no authority for client certificates",
        "set BUSYAPI_ARCHIVE_SECRET_FILE for the flushers and the API",
    ),
    LogEvent(
        "files_reloaded",
        "info",
        ("files",),
        "a secret or a certificate was replaced; new requests and connections use it",
        NO_ACTION,
    ),
    LogEvent(
        "files_not_reloaded",
        "warning",
        ("detail",),
        "a secret or a certificate was replaced by one that cannot be used; the old one stays in"
        " force",
        "correct the file that `detail` names",
    ),
    LogEvent(
        "audit_failed",
        "error",
        ("error", "detail"),
        "the flusher cannot write its audit trail; reads are refused with BUSYAPI_AUDIT=required,"
        " or with auto (the default) if reading needs a credential",
        "the runbook of BusyapiAuditFailing",
    ),
    LogEvent(
        "audit_resumed",
        "info",
        ("failed",),
        "the audit trail can be written again; `failed` entries were refused meanwhile",
        NO_ACTION,
    ),
    LogEvent(
        "audit_entry_refused",
        "error",
        ("partition", "action", "request_id", "detail"),
        "the flusher refuses an entry of the audit trail as invalid: it is dropped, and counted in"
        " `busyapi_audit_dropped_total`. If it was a read, its client got a 503",
        "report a defect with the line: the API made an entry that its flusher does not accept",
    ),
    LogEvent(
        "audit_delivery_failed",
        "error",
        ("partition", "error", "detail"),
        "an API process could not send entries of the audit trail, for an unexpected reason. It"
        " tries again; reads that waited for them got a 503",
        "report a defect with `error` and `detail`",
    ),
    LogEvent(
        "audit_head",
        "info",
        ("file", "seq", "hash"),
        "a file of the audit trail is complete, or the flusher stops (`file` is empty): `hash` is"
        " that of its last record, `seq`",
        "store these lines outside the volume: `busyapi audit verify --expect HASH` checks them",
    ),
)
