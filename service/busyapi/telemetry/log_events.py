"""The catalogue of log events, one row each. `docs/reference/logs.md` is generated from it.

Tests check that each log call has a row and each row has a call.
"""

from busyapi.telemetry.log_event import NO_ACTION, LogEvent
from busyapi.telemetry.log_events_audit import AUDIT_EVENTS
from busyapi.telemetry.log_events_auth import AUTH_EVENTS
from busyapi.telemetry.log_events_lake import LAKE_EVENTS
from busyapi.telemetry.log_events_lists import LIST_EVENTS
from busyapi.telemetry.log_events_replicas import REPLICA_EVENTS

EVENTS = (
    LogEvent(
        "api_started",
        "info",
        ("port", "metrics", "loop"),
        "an API process opened its ports; `loop` is the event loop's library",
        NO_ACTION,
    ),
    LogEvent(
        "draining",
        "info",
        ("seconds",),
        "the process received SIGTERM or cannot run: /readyz fails, requests are still answered",
        NO_ACTION,
    ),
    LogEvent(
        "api_stopped",
        "info",
        (),
        "an API process answered all accepted requests and stopped",
        NO_ACTION,
    ),
    LogEvent(
        "fatal_error",
        "error",
        ("reason", "detail"),
        "settings and Redis are inconsistent, a port is taken (`port`, and the `setting` that has"
        " it), or a committer failed: the process stops",
        "read `detail`; correct the setting, or report a defect",
        ("port", "setting"),
    ),
    LogEvent(
        "setting_renamed",
        "warning",
        ("setting", "use", "ignored"),
        "a setting has a name that the next release no longer accepts; `ignored` is true if its new"
        " name, `use`, is set too and wins",
        "set `use` instead of `setting`",
    ),
    *AUTH_EVENTS,
    LogEvent(
        "open_files_limit_low",
        "warning",
        ("connections", "configured"),
        "the limit of open files is too low for BUSYAPI_MAX_CONNECTIONS",
        "raise the hard limit (`ulimit -Hn`), or lower the setting",
    ),
    LogEvent(
        "fast_path_disabled",
        "warning",
        ("sanic", "tested"),
        "the fast path was not tested with this version of Sanic",
        "install the pinned version: responses are the same, but slower",
    ),
    LogEvent(
        "redis_connected",
        "info",
        ("partition",),
        "a committer is ready again",
        NO_ACTION,
    ),
    LogEvent(
        "redis_disconnected",
        "warning",
        ("partition", "reason", "detail"),
        "a committer lost Redis, or Redis refused it; its usages get a 503",
        "the runbook of BusyapiRedisUnreachable, unless `redis_connected` follows",
    ),
    LogEvent(
        "unexpected_error",
        "error",
        ("error", "where", "request_id"),
        "a request raised an unexpected exception: 500, or the connection is closed",
        "report a defect with `error` and `where`",
    ),
    LogEvent(
        "dns_lookup_failed",
        "warning",
        ("detail", "address"),
        "the DNS lookup of a host of Redis failed, and `address`, the last one that worked, is"
        " used until the lookup works again: the server there holds the record of this partition",
        "repair the DNS that `detail` is about: a server that has moved is not found",
    ),
    LogEvent(
        "flusher_unreachable",
        "warning",
        ("partition", "detail"),
        "a lookup in the archive, or the delivery of audit entries, failed: the flusher of the"
        " partition did not answer, or answered with an error; `detail` says which",
        "check what `detail` names. The DNS, the network or the flusher: the runbook of"
        " BusyapiFlusherStuck; a 401, a 404 or a certificate: BusyapiAuditFailing, step 3",
    ),
    LogEvent(
        "write_rejected",
        "warning",
        ("reason", "stored", "requests", "request_id"),
        "posts of usages get a 503. At most one line per `reason` in ten seconds, with the id of"
        " one request; `requests` counts those since the previous line."
        " The last ones of an outage appear in the next outage's line; metrics count all",
        "RedisUnavailable, OutcomeUnknown: the runbook of BusyapiRedisUnreachable. NotSeeded:"
        " BusyapiFlusherNotReady. DurabilityNotMet: BusyapiDurabilityNotMet."
        " IdempotencyKeysFull: BusyapiIdempotencyKeysFilling. BufferFull,"
        " Overloaded: the alert of that name. UnknownVersion: BusyapiFlusherHalted."
        " CredentialKeysUnavailable: see `credentials_not_reloaded`",
    ),
    LogEvent(
        "read_rejected",
        "warning",
        ("reason", "requests", "request_id"),
        "lookups of usages and counts get a 503, but not probes. At most one line per `reason` in"
        " ten seconds, as for `write_rejected`",
        "ArchiveUnavailable: the runbook of BusyapiFlusherStuck. RedisUnavailable:"
        " BusyapiRedisUnreachable. NotSeeded: BusyapiFlusherNotReady. UnknownVersion:"
        " BusyapiFlusherHalted. Others: as for `write_rejected`",
    ),
    LogEvent(
        "archive_recovered",
        "info",
        ("cursor",),
        "a flusher opened its archive, complete up to `cursor`; not repeated for the same cursor",
        NO_ACTION,
    ),
    LogEvent(
        "archive_damaged",
        "error",
        ("detail",),
        "a file of the archive is damaged",
        "the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent(
        "archive_verified",
        "info",
        ("usages", "problems", "seconds"),
        "the flusher has verified its whole archive",
        NO_ACTION,
    ),
    LogEvent(
        "archive_problem_found",
        "error",
        ("detail",),
        "the verification found usages that are missing, stored twice, damaged or of a later"
        " version; one line each, at most 20",
        "the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent(
        "archive_not_verified",
        "warning",
        ("detail",),
        "a verification did not finish; the next one starts within an hour",
        "read `detail`; the runbook of BusyapiArchiveNotVerified",
    ),
    LogEvent(
        "archive_warning",
        "warning",
        ("detail",),
        "the archive has a problem that is not damage, such as a volume without file locks",
        "read `detail`; if the file system has no locks, use a volume that supports flock",
    ),
    LogEvent(
        "retention_refused",
        "warning",
        ("detail",),
        "old files are not deleted: the newest usage's time and this machine's clock differ by more"
        " than two days, or a file holds a usage that was received in the future",
        "after an idle time, nothing: the next usage resolves it; otherwise check the clocks of"
        " the flusher's and the API's nodes",
    ),
    LogEvent(
        "partition_seeded",
        "info",
        ("why", "cursor"),
        "a flusher seeded Redis with the next id; committers may commit",
        NO_ACTION,
    ),
    LogEvent(
        "stride_widened",
        "info",
        ("strides", "cursor"),
        "a flusher made room for the ids of new partitions: from the next seq on, its own ids have"
        " a larger step. `strides` is what partition.json says",
        NO_ACTION,
    ),
    LogEvent(
        "ids_skipped",
        "warning",
        ("why", "before_seq", "after_seq"),
        "Redis may have lost usages: ids continue at a much higher number, and the gap is recorded."
        " `before_seq` and `after_seq` are the last seq of the archive before and after that",
        "the runbook of BusyapiEpochJump",
    ),
    LogEvent(
        "idempotency_keys_restored",
        "info",
        ("keys",),
        "a flusher restored the Idempotency-Keys that Redis may have lost",
        NO_ACTION,
    ),
    LogEvent(
        "idempotency_log_damaged",
        "error",
        ("file", "detail"),
        "a file of Idempotency-Keys in the archive is damaged: a request with a key that is lost"
        " with it can be stored a second time. Such a file contains no usages",
        "check the volume as in the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent(
        "idempotency_log_not_deleted",
        "warning",
        ("detail",),
        "an expired file of Idempotency-Keys could not be deleted; the flusher tries again",
        "read `detail`; check the volume",
    ),
    LogEvent(
        "entry_quarantined",
        "error",
        ("first_seq", "last_seq", "why"),
        "an entry of the stream is damaged: it is kept unchanged in a quarantine file. It has the"
        " seqs from `first_seq` to `last_seq`",
        "the runbook of BusyapiUsagesQuarantined",
    ),
    LogEvent(
        "flusher_ready",
        "info",
        ("cursor",),
        "a flusher is ready, for the first time or again",
        NO_ACTION,
    ),
    LogEvent(
        "flusher_not_ready",
        "warning",
        ("reason", "detail"),
        "a flusher cannot archive and tries again",
        "read `detail`; the runbook of BusyapiFlusherStuck, unless `flusher_ready` follows",
    ),
    LogEvent(
        "durability_not_met",
        "warning",
        ("detail",),
        "Redis does not meet the configured durability tier",
        "the runbook of BusyapiDurabilityNotMet",
    ),
    *REPLICA_EVENTS,
    LogEvent(
        "durability_trusted",
        "warning",
        ("trust", "tier"),
        "Redis refuses CONFIG GET, so whether it meets the tier is trusted, not checked",
        "none, if what BUSYAPI_REDIS_TRUST says is true of this Redis",
    ),
    LogEvent(
        "fsync_failed",
        "error",
        ("detail",),
        "an fsync of the archive failed; the flusher exits and must be restarted",
        "the runbook of BusyapiArchiveWriteFailing",
    ),
    LogEvent(
        "flusher_failed",
        "error",
        ("error", "detail"),
        "a flusher stops because of an error",
        "read `detail`; if there is no `fsync_failed` before it, report a defect",
    ),
    LogEvent(
        "lookup_failed",
        "warning",
        ("error", "request_id"),
        "the archive could not be read for a lookup",
        "the runbook of BusyapiArchiveDamaged",
    ),
    *LIST_EVENTS,
    *AUDIT_EVENTS,
    *LAKE_EVENTS,
    LogEvent("flusher_stopped", "info", (), "a flusher closed its archive and stopped", NO_ACTION),
    LogEvent(
        "library_log",
        "warning",
        ("logger", "where", "error"),
        "a library logged a message, at this or another level; its text could quote a request and"
        " is omitted",
        "find `where` in the source of the library",
    ),
)
