"""Data path: group commit, Redis, flusher, archive; which of them is slow, or fills up?"""

from charts.dashboards.archiving import ARCHIVE, FLUSH
from charts.dashboards.board import Dashboard, Row
from charts.dashboards.panels import GREEN, LOWEST, RED, YELLOW, Heatmap, Lines, Number, Query
from charts.dashboards.queries import (
    BACKLOG,
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

BOUND = f"max by (partition) (last_over_time({picked('busyapi_bound_usages', of=FLUSHER)}[1h]))"

COMMIT = Row(
    "API: one commit for what came meanwhile",
    [
        Lines(
            title="Usages per commit",
            about="Mean, and what 99 % of commits are not above. Grows with the load, and that is"
            " what keeps Redis idle. 1 under load means that requests no longer meet.",
            unit="short",
            queries=[
                Query(mean("busyapi_batch_usages"), "mean"),
                Query(quantile(0.99, "busyapi_batch_usages"), "p99"),
            ],
        ),
        Heatmap(
            title="Commit duration",
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
            unit="suffix: commits/s",
            queries=[Query(total(rate("busyapi_commit_seconds_count"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Pending usages",
            about="Usages that wait in an API process or are under way. Some hundreds are normal;"
            " at config.pendingMax the API answers 503. Rising: Redis is slow or away.",
            unit="suffix: usages",
            queries=[Query(total(picked("busyapi_pending_usages"), "pod"), "{{pod}}")],
            alerts=["BusyapiOverloaded"],
        ),
        Lines(
            title="Refused requests by reason",
            about="503 a second by reason; none is normal. BufferFull: the flusher is too slow or"
            " away. Overloaded: more pods. NotSeeded: the flusher has not vouched for Redis yet.",
            unit="reqps",
            none="None refused",
            stacked=True,
            queries=[Query(total(rate("busyapi_refused_total"), "reason"), "{{reason}}")],
            alerts=["BusyapiBufferFull", "BusyapiOverloaded"],
        ),
        Lines(
            title="Connections",
            about="Connections of devices and proxies, by pod. At config.maxConnections quiet ones"
            " are closed for new ones: then more pods, or find the client that opens them.",
            unit="short",
            decimals=0,
            queries=[Query(total(picked("busyapi_connections"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Refused and dropped connections",
            about="Refused: all others were at work, and it got 503. Dropped: the kernel's queue"
            " was full, because the process did not accept in time. None of both is normal.",
            unit="suffix: connections/s",
            none="None turned away",
            queries=[
                Query(total(rate("busyapi_connections_refused_total")), "refused"),
                Query(total(rate("busyapi_accept_queue_overflows_total")), "dropped"),
            ],
        ),
        Lines(
            title="Bytes being received",
            about="Bytes of requests that are arriving, by pod, beyond some kB for each connection."
            " At config.receivingBytes the slowest get 503.",
            unit="bytes",
            queries=[Query(total(picked("busyapi_receiving_bytes"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Committer failures by reason",
            about="Times that a lane found no checked connection, in each interval. None is normal;"
            " a failover gives some. TooWeak: Redis was set weaker than the tier asks.",
            unit="short",
            none="None lost",
            queries=[Query(total(increase("busyapi_lane_failures_total"), "reason"), "{{reason}}")],
            alerts=["BusyapiRedisUnreachable", "BusyapiDurabilityNotHeld"],
        ),
    ],
)

BUFFER = Row(
    "Redis: the buffer",
    [
        Lines(
            title="Buffer fill level",
            about="Usages that wait for the archive, of the most that may wait. Normal is near 0."
            " At 100 % the API answers 503 BufferFull, and nothing that was answered 201 is lost.",
            unit="percentunit",
            steps=[(0.8, RED)],
            queries=[Query(f"{BACKLOG} / on (partition) {BOUND}", PARTITION)],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Lines(
            title="Time until the buffer is full",
            about="At the growth of the last 5 minutes (no line while it does not grow), and were"
            " nothing archived from now on. With a flusher away and minutes left: wake someone.",
            unit="s",
            none="Nothing comes in",
            logarithmic=True,
            queries=[
                Query(picked("busyapi:buffer_left:seconds", of=FLUSHER), "as now, " + PARTITION),
                Query(
                    f"({BOUND} - on (partition) {BACKLOG}) / (max by (partition)"
                    f" ({rate('busyapi_committed_seq', of=FLUSHER)}) > 0)",
                    "flusher away, " + PARTITION,
                ),
            ],
            alerts=["BusyapiBufferFilling"],
        ),
        Lines(
            title="Redis memory",
            about="What the data of the partition's Redis takes, and what it may take. Follows the"
            " backlog. At the limit it refuses commits, and nothing is lost: raise the limit.",
            unit="bytes",
            queries=[
                Query(
                    largest(picked("busyapi_redis_memory_bytes", of=FLUSHER), "partition") + " > 0",
                    "used, " + PARTITION,
                ),
                Query(
                    largest(picked("busyapi_redis_memory_max_bytes", of=FLUSHER), "partition")
                    + " > 0",
                    "limit, " + PARTITION,
                ),
            ],
            alerts=["BusyapiRedisMemoryHigh"],
        ),
        Lines(
            title="Idempotency-Keys",
            about="Keys that a partition knows, and the most it may know. At the most a post with a"
            " new key is refused, and no other: raise config.idempotencyKeys, or the memory.",
            unit="short",
            queries=[
                Query(
                    largest(picked("busyapi_idempotency_keys", of=FLUSHER), "partition") + " > 0",
                    "known, " + PARTITION,
                ),
                Query(
                    largest(picked("busyapi_idempotency_keys_max", of=FLUSHER), "partition")
                    + " > 0",
                    "most, " + PARTITION,
                ),
            ],
            alerts=["BusyapiIdempotencyKeysFilling"],
        ),
        Number(
            title="Epoch jumps",
            about="Times that ids jumped past what Redis may have lost, since the flushers started."
            " 0 is normal; each is a failover, or a Redis without its data. The archive says why.",
            unit="short",
            steps=[(1, RED)],
            queries=[Query(f"sum({picked('busyapi_epoch_jumps_total', of=FLUSHER)})")],
            alerts=["BusyapiEpochJump"],
        ),
        Number(
            title="Seeded partitions",
            about="Partitions whose flusher has compared Redis with the archive and vouches for it."
            " Fewer than partitions: the API answers 503 NotSeeded for the others.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            queries=[Query(f"sum({picked('busyapi_seeded', of=FLUSHER)})")],
            alerts=["BusyapiPartitionNotSeeded"],
        ),
        Number(
            title="Committers ready",
            about="Lanes of all API processes that may commit: processes times partitions. Fewer:"
            " Redis is away, or not what the partition's record says.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            queries=[Query(f"sum({picked('busyapi_lanes_ready')})")],
            alerts=["BusyapiRedisUnreachable"],
        ),
        Number(
            title="Halted partitions",
            about="Partitions whose archive lacks what Redis speaks of. Normal is 0. A person must"
            " decide: read the runbook before `busyapi archive accept-loss`.",
            unit="short",
            steps=[(1, RED)],
            queries=[Query(f"sum({picked('busyapi_halted', of=FLUSHER)})")],
            alerts=["BusyapiFlusherHalted"],
        ),
        Number(
            title="Durability",
            about="Whether every process found Redis as strong as the tier that a 201 stands for."
            " Not held: the API refuses; the log says which line of Redis's settings to change.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            words=[(0, "not held"), (1, "held")],
            queries=[Query(f"min({picked('busyapi_durability_held')})")],
            alerts=["BusyapiDurabilityNotHeld"],
        ),
        Number(
            title="Oldest unarchived usage",
            about="Age of the oldest usage that is in Redis and not yet in the archive. Normal is"
            " below a few seconds; the objective is 60 s.",
            unit="s",
            steps=[(10, YELLOW), (60, RED)],
            queries=[Query(f"max({picked('busyapi_oldest_unarchived_seconds', of=FLUSHER)})")],
            alerts=["BusyapiArchivingBurn", "BusyapiFlusherStuck"],
        ),
    ],
)

DATA_PATH = Dashboard(
    "Data path",
    "Group commit, the buffer in Redis, the flusher and the archive, step by step.",
    [COMMIT, BUFFER, FLUSH, ARCHIVE],
)
