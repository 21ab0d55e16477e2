"""The second half of the data path: from Redis to files, and the disk that they are on."""

from charts.dashboards.board import Row
from charts.dashboards.panels import LOWEST, RED, YELLOW, Heatmap, Lines, Query
from charts.dashboards.queries import (
    FLUSHER,
    PARTITION,
    increase,
    largest,
    mean,
    picked,
    quantile,
    rate,
    total,
)

FREE = picked("busyapi:archive_free_bytes:max", of=FLUSHER)
SIZE = largest(picked("busyapi_archive_size_bytes", of=FLUSHER), "partition")

FLUSH = Row(
    "Flusher: from Redis to files",
    [
        Lines(
            title="Usages per flush",
            about="Mean, and what 99 % of flushes are not above. Follows the load; after a pause a"
            " flush takes as many as it may until the backlog is gone.",
            unit="short",
            queries=[
                Query(mean("busyapi_flush_usages", of=FLUSHER), "mean"),
                Query(quantile(0.99, "busyapi_flush_usages", of=FLUSHER), "p99"),
            ],
        ),
        Lines(
            title="Flush duration",
            about="Rendering, writing and fsync of one flush. Tens of milliseconds are normal;"
            " when the fsync beside it is as long, the disk is what takes the time.",
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
            about="Share of its time that a flusher spends in each stage, on average of the"
            " partitions. What is left is reading and waiting for usages. Near 100 % it is at its"
            " limit: the stage that grew says why.",
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
    "Archive: the disk",
    [
        Heatmap(
            title="Fsync duration",
            about="How many fsyncs a second took how long. One band of some milliseconds is normal;"
            " a band that climbs is a disk that is shared, throttled or dying.",
            unit="s",
            cells="iops",
            queries=[
                Query(total(rate("busyapi_fsync_seconds_bucket", of=FLUSHER), "le"), "{{le}}")
            ],
            alerts=["BusyapiArchiveFsyncSlow"],
        ),
        Lines(
            title="Archive write rate",
            about="Compressed bytes a second that were written to segments. Follows the usages:"
            " some tens of bytes each.",
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
            about="Size of the segment that is written now. Climbs to config.segmentBytes or until"
            " config.segmentAge has gone by, then begins anew.",
            unit="bytes",
            queries=[
                Query(total(picked("busyapi_segment_bytes", of=FLUSHER), "partition"), PARTITION)
            ],
        ),
        Lines(
            title="Segments finished",
            about="Segments that were finished, in each interval: for their size under load, once"
            " in config.segmentAge without. Many small ones: raise config.segmentBytes.",
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
            about="Used share of each archive volume. Climbs steadily; enlarge the claim or set"
            " config.retentionDays long before it is full. A full one loses nothing: it stops.",
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
            about="If it goes on as in the last six hours. No line is a volume that does not fill."
            " Below the line: enlarge the claim this week.",
            unit="d",
            width=6,
            none="None fills",
            steps=[(LOWEST, RED), (4, YELLOW)],
            queries=[Query(picked("busyapi:archive_left:days", of=FLUSHER), PARTITION)],
            alerts=["BusyapiArchiveDiskFilling"],
        ),
        Lines(
            width=6,
            title="Archive errors",
            about="Failed tries to write, by kind, and usages that could not be rendered, in each"
            " interval; files that are damaged, or were and are set aside. None is normal: read the"
            " runbook. Retention is refused while clocks disagree, or after two idle days.",
            unit="short",
            queries=[
                Query(
                    total(increase("busyapi_archive_errors_total", of=FLUSHER), "kind"), "{{kind}}"
                ),
                Query(total(picked("busyapi_archive_damaged_files", of=FLUSHER)), "damaged files"),
                Query(total(picked("busyapi_retention_refused", of=FLUSHER)), "retention refused"),
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
    ],
)
