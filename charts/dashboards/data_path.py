"""Data path: group commit, Redis, flusher, archive; which of them is slow, or fills up?"""

from charts.dashboards.board import Dashboard, Row
from charts.dashboards.panels import RED, YELLOW, Heatmap, Lines, Number, Query
from charts.dashboards.queries import (
    FLUSHER,
    increase,
    largest,
    mean,
    picked,
    quantile,
    rate,
    total,
)

ISSUED = picked("busyapi_issued_seq", of=FLUSHER)
ARCHIVED = picked("busyapi_archived_seq", of=FLUSHER)
BOUND = picked("busyapi_bound_usages", of=FLUSHER)
BACKLOG = f"clamp_min({ISSUED} - {ARCHIVED}, 0)"
FREE = picked("busyapi_archive_free_bytes", of=FLUSHER)
PARTITION = "partition {{partition}}"

COMMIT = Row(
    "API: one commit for what came meanwhile",
    [
        Lines(
            title="Usages in a commit",
            about="Mean, and what 99 % of commits are not above. Grows with the load, and that is"
            " what keeps Redis idle. 1 under load means that requests no longer meet.",
            unit="short",
            queries=[
                Query(mean("busyapi_batch_usages"), "mean"),
                Query(quantile(0.99, "busyapi_batch_usages"), "p99"),
            ],
        ),
        Heatmap(
            title="Time of a commit",
            about="How many commits a second took how long: the script in Redis and its fsync. One"
            " band of some milliseconds is normal. Above 50 ms the disk of Redis is slow.",
            unit="s",
            cells="cps",
            queries=[Query(total(rate("busyapi_commit_seconds_bucket"), "le"), "{{le}}")],
            alerts=["BusyapiLatencyBurn"],
        ),
        Lines(
            title="Commits",
            about="Commits a second, by pod. One lane has one commit under way: the more time each"
            " takes, the fewer and the larger they are.",
            unit="cps",
            queries=[Query(total(rate("busyapi_commit_seconds_count"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Pending in the API",
            about="Usages that wait in an API process or are under way. Some hundreds are normal;"
            " at config.pendingMax the API answers 503. Rising: Redis is slow or away.",
            unit="short",
            queries=[Query(total(picked("busyapi_pending_usages"), "pod"), "{{pod}}")],
            alerts=["BusyapiOverloaded"],
        ),
        Lines(
            title="Refused, by reason",
            about="503 a second by reason; none is normal. BufferFull: the flusher is too slow or"
            " away. Overloaded: more pods. NotSeeded: the flusher has not vouched for Redis yet.",
            unit="reqps",
            stacked=True,
            queries=[Query(total(rate("busyapi_refused_total"), "reason"), "{{reason}}")],
            alerts=["BusyapiBufferFull", "BusyapiOverloaded"],
        ),
        Lines(
            title="Lanes without Redis, by reason",
            about="Times that a lane found no checked connection, in each interval. None is normal;"
            " a failover gives some. WeakerThanTier: Redis was set weaker than the tier asks.",
            unit="short",
            queries=[Query(total(increase("busyapi_lane_failures_total"), "reason"), "{{reason}}")],
            alerts=["BusyapiRedisUnreachable", "BusyapiDurabilityNotHeld"],
        ),
    ],
)

BUFFER = Row(
    "Redis: the buffer",
    [
        Lines(
            title="Backlog and bound",
            about="Usages that wait for the archive, and the most that may wait. At the bound the"
            " API answers 503 BufferFull and nothing is lost. The scale is logarithmic.",
            unit="short",
            logarithmic=True,
            queries=[
                Query(f"sum by (partition) ({BACKLOG})", "waiting, " + PARTITION),
                Query(f"sum by (partition) ({BOUND})", "bound, " + PARTITION),
            ],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Lines(
            title="Time until the buffer is full",
            about="At the present rate, were nothing archived from now on: how long a flusher may"
            " be away. Below ten minutes with a flusher away: wake someone.",
            unit="s",
            steps=[(float("-inf"), RED), (600, YELLOW)],
            logarithmic=True,
            queries=[
                Query(
                    f"sum by (partition) ({BOUND} - {BACKLOG})"
                    f" / (sum by (partition) ({rate('busyapi_issued_seq', of=FLUSHER)}) > 0)",
                    PARTITION,
                )
            ],
            alerts=["BusyapiBufferFilling"],
        ),
        Lines(
            title="Oldest not archived",
            about="Age of the oldest usage that was read and is not in the archive. Normal is below"
            " a few seconds; the line is the objective of 60 s.",
            unit="s",
            steps=[(60, RED)],
            queries=[
                Query(
                    largest(picked("busyapi_oldest_unarchived_seconds", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
            alerts=["BusyapiArchivingBurn", "BusyapiFlusherStuck"],
        ),
        Number(
            title="Epoch jumps, last day",
            about="Times in a day that ids jumped past what Redis may have lost. 0 is normal; each"
            " one is a restart of Redis without its data, or a failover. The archive says why.",
            unit="short",
            steps=[(1, RED)],
            width=6,
            queries=[
                Query(f"sum(increase({picked('busyapi_epoch_jumps_total', of=FLUSHER)}[1d]))")
            ],
            alerts=["BusyapiEpochJump"],
        ),
        Number(
            title="Seeded partitions",
            about="Partitions whose flusher has compared Redis with the archive and vouches for it."
            " Fewer than partitions: the API answers 503 NotSeeded for the others.",
            unit="short",
            steps=[(float("-inf"), RED), (1, "green")],
            width=6,
            queries=[Query(f"sum({picked('busyapi_seeded', of=FLUSHER)})")],
            alerts=["BusyapiPartitionNotSeeded"],
        ),
        Number(
            title="Lanes ready",
            about="Lanes of all API processes that may commit: processes times partitions. Fewer:"
            " Redis is away, or not what the partition's record says.",
            unit="short",
            steps=[(float("-inf"), RED), (1, "green")],
            width=6,
            queries=[Query(f"sum({picked('busyapi_lanes_ready')})")],
            alerts=["BusyapiRedisUnreachable"],
        ),
        Number(
            title="Halted partitions",
            about="Partitions whose archive lacks what Redis speaks of. Normal is 0. A person must"
            " decide: read the runbook before `busyapi archive accept-loss`.",
            unit="short",
            steps=[(1, RED)],
            width=6,
            queries=[Query(f"sum({picked('busyapi_halted', of=FLUSHER)})")],
            alerts=["BusyapiFlusherHalted"],
        ),
    ],
)

FLUSH = Row(
    "Flusher: from Redis to files",
    [
        Lines(
            title="Usages in a flush",
            about="Mean, and what 99 % of flushes are not above. Follows the load; after a pause a"
            " flush takes as many as it may until the backlog is gone.",
            unit="short",
            queries=[
                Query(mean("busyapi_flush_usages", of=FLUSHER), "mean"),
                Query(quantile(0.99, "busyapi_flush_usages", of=FLUSHER), "p99"),
            ],
        ),
        Lines(
            title="Time of a flush",
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
            title="Archived",
            about="Usages a second that reached the archive, by partition. Zero while usages wait:"
            " the flusher is stuck, halted or away.",
            unit="short",
            queries=[
                Query(total(rate("busyapi_flush_usages_sum", of=FLUSHER), "partition"), PARTITION)
            ],
            alerts=["BusyapiFlusherStuck"],
        ),
    ],
)

ARCHIVE = Row(
    "Archive: the disk",
    [
        Heatmap(
            title="Time of an fsync",
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
            title="Written",
            about="Compressed bytes a second that were written to segments. Follows the usages:"
            " some tens of bytes each.",
            unit="Bps",
            queries=[
                Query(
                    total(rate("busyapi_archive_written_bytes_total", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
        ),
        Lines(
            title="Open segment",
            about="Size of the segment that is written now. Climbs to config.segmentBytes or until"
            " config.segmentAge has gone by, then begins anew.",
            unit="bytes",
            queries=[
                Query(total(picked("busyapi_segment_bytes", of=FLUSHER), "partition"), PARTITION)
            ],
        ),
        Lines(
            title="Free on the volume",
            about="Free bytes of each archive volume. Falls steadily; enlarge the claim or set"
            " config.retentionDays long before it is gone.",
            unit="bytes",
            queries=[Query(f"min by (partition) ({FREE})", PARTITION)],
            alerts=["BusyapiArchiveDiskFilling", "BusyapiArchiveDiskFull"],
        ),
        Lines(
            title="Days until the volume is full",
            about="If it goes on as in the last six hours. No line is a volume that does not fill."
            " Below the line: enlarge the claim this week.",
            unit="d",
            steps=[(float("-inf"), RED), (7, YELLOW)],
            queries=[
                Query(f"min by (partition) ({FREE} / (-deriv({FREE}[6h]) > 0)) / 86400", PARTITION)
            ],
            alerts=["BusyapiArchiveDiskFilling"],
        ),
        Lines(
            title="What went wrong",
            about="Failed writes and fsyncs by kind, files that recovery set aside and usages that"
            " could not be rendered, in each interval. None of it is normal: read the runbook.",
            unit="short",
            queries=[
                Query(
                    total(increase("busyapi_archive_errors_total", of=FLUSHER), "kind"), "{{kind}}"
                ),
                Query(
                    total(increase("busyapi_archive_damaged_files_total", of=FLUSHER)),
                    "files set aside",
                ),
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

DATA_PATH = Dashboard(
    "Data path",
    "Group commit, the buffer in Redis, the flusher and the archive, step by step.",
    [COMMIT, BUFFER, FLUSH, ARCHIVE],
)
