"""The catalogue of log events, one row each: `docs/reference/logs.md` is made from it.

Tests hold every log call to its row, and every row to a call.
"""

from typing import NamedTuple


class LogEvent(NamedTuple):
    """What a line with this name says."""

    name: str
    level: str
    fields: tuple[str, ...]
    when: str
    action: str


NO_ACTION = "nothing"

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
        "SIGTERM came, or the process cannot run: /readyz fails, what comes is still answered",
        NO_ACTION,
    ),
    LogEvent("api_stopped", "info", (), "an API process answered all it had taken", NO_ACTION),
    LogEvent(
        "fatal_error",
        "error",
        ("reason", "detail"),
        "settings and Redis contradict each other, or a committer failed: the process stops",
        "read `detail`; put the setting right, or report it",
    ),
    LogEvent(
        "credentials_refused",
        "warning",
        ("address", "requests"),
        "so many requests, the last from this address or network, came without a known token after"
        " its allowance for that was used up, and were answered 429",
        "a device with an old token, or a client that guesses tokens: find it by the address",
    ),
    LogEvent(
        "open_files_limit_low",
        "warning",
        ("connections", "configured"),
        "the limit of open files allows fewer connections than BUSYAPI_MAX_CONNECTIONS",
        "raise the hard limit (`ulimit -Hn`), or lower the setting",
    ),
    LogEvent(
        "fast_path_disabled",
        "warning",
        ("sanic", "tested"),
        "Sanic is of another version than the fast path was held against",
        "install the pinned version: answers are the same, but slower",
    ),
    LogEvent(
        "redis_connected",
        "info",
        ("partition",),
        "a committer that was not ready commits again",
        NO_ACTION,
    ),
    LogEvent(
        "redis_disconnected",
        "warning",
        ("partition", "reason", "detail"),
        "a committer lost Redis or was refused by it; its usages are answered 503",
        "the runbook of BusyapiRedisUnreachable, unless `redis_connected` follows",
    ),
    LogEvent(
        "unexpected_error",
        "error",
        ("error", "where", "request_id"),
        "a request met an exception that has no answer of its own: 500, or the connection is cut",
        "a defect: report it with `error` and `where`",
    ),
    LogEvent(
        "write_rejected",
        "warning",
        ("reason", "stored", "requests", "request_id"),
        "devices are answered 503 (no probe is meant): a line for a `reason` once in ten seconds,"
        " with the id of one of them; `requests` is how many there were since the line before:"
        " the last of an outage are told by the next, and metrics count each",
        "RedisUnavailable, OutcomeUnknown: the runbook of BusyapiRedisUnreachable. NotSeeded:"
        " BusyapiPartitionNotSeeded. DurabilityNotMet: BusyapiDurabilityNotHeld."
        " IdempotencyKeysFull: BusyapiIdempotencyKeysFilling. BufferFull,"
        " Overloaded: the alert of that name. ArchiveUnavailable: BusyapiFlusherStuck."
        " UnknownVersion: BusyapiFlusherHalted",
    ),
    LogEvent(
        "archive_recovered",
        "info",
        ("cursor",),
        "a flusher opened its archive, whole up to `cursor`; not said again at the same one",
        NO_ACTION,
    ),
    LogEvent(
        "archive_damaged",
        "error",
        ("detail",),
        "a file of the archive is not what was written",
        "the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent(
        "archive_warning",
        "warning",
        ("detail",),
        "something about the archive that an operator should know, and that is no damage",
        "read `detail`; a lock that the file system does not offer: use a volume with flock",
    ),
    LogEvent(
        "retention_refused",
        "warning",
        ("detail",),
        "old files are not deleted: the newest usage's time and this machine's clock differ by more"
        " than two days, or a file holds a usage that was received in the future",
        "after an idle time, nothing: the next usage ends it; otherwise check the clocks of the"
        " flusher's node and of the API's",
    ),
    LogEvent(
        "partition_seeded",
        "info",
        ("why", "cursor"),
        "a flusher told Redis where ids go on; committers may commit",
        NO_ACTION,
    ),
    LogEvent(
        "ids_skipped",
        "warning",
        ("why", "before", "after"),
        "Redis may have lost usages: ids go on far above, and the gap is recorded",
        "the runbook of BusyapiEpochJump",
    ),
    LogEvent(
        "idempotency_keys_restored",
        "info",
        ("keys",),
        "a flusher gave a Redis server the Idempotency-Keys that it may have lost",
        NO_ACTION,
    ),
    LogEvent(
        "idempotency_log_damaged",
        "error",
        ("file", "detail"),
        "a file of Idempotency-Keys in the archive is not what was written: a repeat of a key that"
        " is lost with it is stored a second time. No usage is in such a file",
        "look at the volume, as the runbook of BusyapiArchiveDamaged does",
    ),
    LogEvent(
        "idempotency_log_not_deleted",
        "warning",
        ("detail",),
        "a file of Idempotency-Keys whose time is over could not be deleted; it is tried again",
        "read `detail`; look at the volume",
    ),
    LogEvent(
        "entry_quarantined",
        "error",
        ("first", "last", "why"),
        "an entry of the stream is damaged: kept as it is, beside the archive",
        "the runbook of BusyapiUsagesQuarantined",
    ),
    LogEvent(
        "flusher_ready",
        "info",
        ("cursor",),
        "a flusher archives, first or again",
        NO_ACTION,
    ),
    LogEvent(
        "flusher_not_ready",
        "warning",
        ("reason", "detail"),
        "a flusher cannot archive; it tries again",
        "read `detail`; the runbook of BusyapiFlusherStuck, unless `flusher_ready` follows",
    ),
    LogEvent(
        "durability_not_met",
        "warning",
        ("detail",),
        "Redis does not hold the durability that is set",
        "the runbook of BusyapiDurabilityNotHeld",
    ),
    LogEvent(
        "fsync_failed",
        "error",
        ("detail",),
        "the archive's disk did not take what was written; the flusher ends and starts anew",
        "the runbook of BusyapiArchiveWriteFailing",
    ),
    LogEvent(
        "flusher_failed",
        "error",
        ("error", "detail"),
        "a flusher ends because of this",
        "read `detail`; without `fsync_failed` before it, report it",
    ),
    LogEvent(
        "lookup_failed",
        "warning",
        ("error", "request_id"),
        "an archived usage was asked for, and the archive could not be read",
        "the runbook of BusyapiArchiveDamaged",
    ),
    LogEvent("flusher_stopped", "info", (), "a flusher let its archive go", NO_ACTION),
    LogEvent(
        "library_log",
        "warning",
        ("logger", "where", "error"),
        "a library logged something, at this level or another; its text could quote a request and"
        " is left out",
        "look `where` up in the library's source",
    ),
)
