"""The second half of the dashboard "Data path": the flusher, and the archive and its disk."""

from charts.dashboards.board import Row
from charts.dashboards.panels import LOWEST, RED, YELLOW, Heatmap, Lines, Query
from charts.dashboards.queries import (
    FLUSHER,
    PARTITION,
    increase,
    largest,
    mean,
    quantile,
    rate,
    select,
    total,
)

FREE = select("busyapi:archive_free_bytes:max", of=FLUSHER)
VERIFIED = largest(select("busyapi_archive_verified_timestamp_seconds", of=FLUSHER), "partition")
SIZE = largest(select("busyapi_archive_size_bytes", of=FLUSHER), "partition")

FLUSH = Row(
    "Flusher: from Redis to the archive",
    [
        Lines(
            title="Usages per flush",
            about="Mean and 99th percentile. Follows the load. After a pause each flush is as"
            " large as allowed until the backlog is gone.",
            unit="short",
            queries=[
                Query(mean("busyapi_flush_usages", of=FLUSHER), "mean"),
                Query(quantile(0.99, "busyapi_flush_usages", of=FLUSHER), "p99"),
            ],
        ),
        Lines(
            title="Flush duration",
            about="Encoding, write and fsync of one flush. Normal: tens of milliseconds. If the"
            " fsync takes as long as the flush, the disk is slow.",
            unit="s",
            queries=[
                Query(mean("busyapi_flush_seconds", of=FLUSHER), "flush, mean"),
                Query(quantile(0.99, "busyapi_flush_seconds", of=FLUSHER), "flush, p99"),
                Query(mean("busyapi_fsync_seconds", of=FLUSHER), "fsync, mean"),
            ],
            alerts=["BusyapiFlusherStuck"],
        ),
        Lines(
            title="Flusher time by stage",
            about="Share of its time that a flusher spends in each stage, averaged over"
            " partitions. The rest is reading and idle time. Near 100 % the flusher is at its"
            " limit: see which stage grew.",
            unit="percentunit",
            stacked=True,
            queries=[
                Query(
                    "avg by (stage) ("
                    + rate("busyapi_flush_stage_seconds_total", 'stage!="read"', of=FLUSHER)
                    + ")",
                    "{{stage}}",
                )
            ],
            alerts=["BusyapiFlusherStuck"],
        ),
    ],
)

ARCHIVE = Row(
    "Archive: files and disk",
    [
        Heatmap(
            title="Fsync duration",
            about="Fsyncs per second by duration. Normal: one band of a few milliseconds. A"
            " rising band: the disk is shared, throttled or failing.",
            unit="s",
            cells="iops",
            queries=[
                Query(total(rate("busyapi_fsync_seconds_bucket", of=FLUSHER), "le"), "{{le}}")
            ],
            alerts=["BusyapiArchiveFsyncSlow"],
        ),
        Lines(
            title="Archive write rate",
            about="Compressed bytes written to segments per second. Follows the usages: some"
            " tens of bytes each.",
            unit="binBps",
            queries=[
                Query(
                    total(rate("busyapi_archive_written_bytes_total", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
        ),
        Lines(
            title="Open segment size",
            about="Size of the segment that is being written. Grows until config.segmentBytes"
            " or config.segmentAge is reached, then starts again.",
            unit="bytes",
            queries=[
                Query(total(select("busyapi_segment_bytes", of=FLUSHER), "partition"), PARTITION)
            ],
        ),
        Lines(
            title="Segments finished",
            about="Segments finished in each interval: by size under load, otherwise one per"
            " config.segmentAge. Many small ones: raise config.segmentBytes.",
            unit="short",
            width=6,
            queries=[
                Query(
                    total(increase("busyapi_segments_finished_total", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
        ),
        Lines(
            title="Archive volume used",
            about="Used share of each archive volume. Grows steadily: enlarge the claim or set"
            " config.retentionDays long before it is full. A full volume stops archiving and"
            " loses nothing.",
            unit="percentunit",
            width=6,
            maximum=1,
            steps=[(0.85, RED)],
            queries=[
                Query(f"1 - max by (partition) ({FREE}) / ({SIZE} > 0)", PARTITION),
            ],
            alerts=["BusyapiArchiveDiskFilling", "BusyapiArchiveDiskFull"],
        ),
        Lines(
            title="Days until the volume is full",
            about="At the rate of the last six hours. No line: the volume is not filling. Below"
            " the line: enlarge the claim this week.",
            unit="d",
            width=6,
            no_data="Not filling",
            steps=[(LOWEST, RED), (4, YELLOW)],
            queries=[Query(select("busyapi:archive_left:days", of=FLUSHER), PARTITION)],
            alerts=["BusyapiArchiveDiskFilling"],
        ),
        Lines(
            width=6,
            title="Archive errors",
            about="Failed writes by kind, and usages that could not be decoded, in each"
            " interval; damaged files, counting those that were set aside, and problems of the"
            " last verification. Normal: none; otherwise read the runbook. Retention is refused"
            " while clocks disagree, or after two idle days.",
            unit="short",
            queries=[
                Query(
                    total(increase("busyapi_archive_errors_total", of=FLUSHER), "kind"), "{{kind}}"
                ),
                Query(total(select("busyapi_archive_damaged_files", of=FLUSHER)), "damaged files"),
                Query(
                    total(select("busyapi_archive_verify_problems", of=FLUSHER)),
                    "problems found by verification",
                ),
                Query(total(select("busyapi_retention_refused", of=FLUSHER)), "retention refused"),
                Query(
                    total(increase("busyapi_quarantined_usages_total", of=FLUSHER)),
                    "usages quarantined",
                ),
            ],
            alerts=[
                "BusyapiArchiveWriteFailing",
                "BusyapiArchiveDiskFull",
                "BusyapiArchiveDamaged",
                "BusyapiUsagesQuarantined",
            ],
        ),
        Lines(
            title="Time since the archive was verified",
            about="Age of the last complete verification of each partition; before the first one,"
            " of the flusher. Grows to config.verifyInterval and starts again.",
            unit="s",
            width=12,
            queries=[Query(f"time() - {VERIFIED}", PARTITION)],
            alerts=["BusyapiArchiveNotVerified"],
        ),
        Lines(
            title="Audit records",
            about="Entries of the audit trail that were put on disk, and events that API processes"
            " did not record, in each interval. Failing: the trail cannot be written, and reads get"
            " 503 unless config.audit allows them. Failed deliveries: requests of API processes to"
            " flushers.",
            unit="short",
            width=24,
            queries=[
                Query(total(increase("busyapi_audit_records_total", of=FLUSHER)), "recorded"),
                Query(total(increase("busyapi_audit_dropped_total")), "not recorded"),
                Query(total(select("busyapi_audit_failing", of=FLUSHER)), "failing"),
                Query(
                    total(increase("busyapi_audit_deliveries_total", 'outcome="failed"')),
                    "failed deliveries",
                ),
            ],
            alerts=["BusyapiAuditFailing"],
        ),
        Lines(
            title="Duration of the verification",
            about="How long the last verification took. Grows with the archive. Near"
            " config.verifyInterval: raise it.",
            unit="s",
            width=12,
            queries=[
                Query(
                    largest(
                        select("busyapi_archive_verify_seconds", of=FLUSHER) + " > 0", "partition"
                    ),
                    PARTITION,
                )
            ],
        ),
    ],
)
