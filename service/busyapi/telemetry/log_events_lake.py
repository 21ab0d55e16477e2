"""The log events of `busyapi lake`."""

from busyapi.telemetry.log_event import NO_ACTION, LogEvent

LAKE_EVENTS = (
    LogEvent(
        "lake_committed",
        "info",
        ("usages", "files", "seconds", "left"),
        "`busyapi lake` took finished usages into the table; `left` seqs are still to take."
        " 0 usages: only gap records were finished, or another process took the same usages first",
        NO_ACTION,
    ),
    LogEvent(
        "lake_problem",
        "error",
        ("partition", "detail"),
        "`busyapi lake` takes nothing more of a partition, because a seq is in no finished file or"
        " cannot be read; other partitions continue. It tries again in each turn",
        "repair the archive, as the runbook of BusyapiArchiveDamaged says, or accept the loss with"
        " `busyapi archive accept-loss`",
    ),
    LogEvent(
        "lake_usages_missing",
        "error",
        ("partition", "ids"),
        "retention deleted these usages before `busyapi lake` took them: they are not in the table",
        "let `busyapi lake` run more often than segments expire. If a backup of the archive has the"
        " usages, fill a new table from it",
    ),
    LogEvent(
        "lake_failed",
        "error",
        ("error", "detail"),
        "a turn of `busyapi lake` failed, for example because the catalog or the object store does"
        " not answer; it tries again after BUSYAPI_LAKE_INTERVAL, and later after each failure, up"
        " to 10 minutes",
        "read `detail`; check the catalog, the warehouse and their credentials",
    ),
    LogEvent(
        "lake_stuck",
        "error",
        (),
        "the catalog or the object store has not answered `busyapi lake` for half an hour. The"
        " process starts itself again; with --once it ends",
        "check the network to the catalog and the object store",
    ),
    LogEvent(
        "lake_compacted",
        "info",
        ("files",),
        "`busyapi lake` joined this many small files of the table to larger ones",
        NO_ACTION,
    ),
    LogEvent(
        "lake_swept",
        "info",
        ("files",),
        "`busyapi lake` deleted this many files that no snapshot of the table has",
        NO_ACTION,
    ),
)
