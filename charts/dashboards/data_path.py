"""The dashboard "Data path": which of commit, Redis, flusher and archive is slow or fills up?"""

from charts.dashboards.archiving import ARCHIVE, FLUSH
from charts.dashboards.board import Dashboard, Row
from charts.dashboards.lake import LAKE
from charts.dashboards.panels import GREEN, LOWEST, RED, YELLOW, Heatmap, Lines, Number, Query
from charts.dashboards.queries import (
    BACKLOG,
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

BOUND = f"max by (partition) (last_over_time({select('busyapi_bound_usages', of=FLUSHER)}[1h]))"
CONFIRMING = select("busyapi_replicas_confirming", of=FLUSHER)
FEWEST_CONFIRMING = (
    # Of the flushers that decide: each server has one.
    f"min({CONFIRMING} and {select('busyapi_replicas_expected', of=FLUSHER)} > 0)"
    f" or max({CONFIRMING})"
)

COMMIT = Row(
    "API: group commit",
    [
        Lines(
            title="Usages per commit",
            about="Mean and 99th percentile. Grows with the load, so that Redis has fewer"
            " commits to do. 1 under load: requests are no longer grouped.",
            unit="short",
            queries=[
                Query(mean("busyapi_batch_usages"), "mean"),
                Query(quantile(0.99, "busyapi_batch_usages"), "p99"),
            ],
        ),
        Heatmap(
            title="Commit duration",
            about="Commits per second by duration: the script in Redis and its fsync. Normal:"
            " one band of a few milliseconds. Above 50 ms the disk of Redis is slow.",
            unit="s",
            cells="cps",
            queries=[Query(total(rate("busyapi_commit_seconds_bucket"), "le"), "{{le}}")],
            alerts=["BusyapiLatencyBurn"],
        ),
        Lines(
            title="Confirmation by the replicas",
            about="How long a commit that is on the disk of the primary waits for its replicas:"
            " the part of the commit duration that the tier replicated adds. Normal: a few"
            " milliseconds. Higher: the disk of a replica or the network to it is slow.",
            unit="s",
            no_data="Only in the tier replicated",
            queries=[
                Query(quantile(0.5, "busyapi_confirm_seconds"), "p50"),
                Query(quantile(0.99, "busyapi_confirm_seconds"), "p99"),
            ],
        ),
        Lines(
            title="Commits",
            about="Commits per second by pod. A committer has one commit in flight at a time:"
            " the longer a commit takes, the fewer and larger they are.",
            unit="suffix: commits/s",
            queries=[Query(total(rate("busyapi_commit_seconds_count"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Pending usages",
            about="Usages that an API process has accepted and not yet stored in Redis. Normal: up"
            " to some hundreds. At config.pendingMax the API answers 503. Rising: Redis is slow or"
            " down.",
            unit="suffix: usages",
            queries=[Query(total(select("busyapi_pending_usages"), "pod"), "{{pod}}")],
            alerts=["BusyapiOverloaded"],
        ),
        Lines(
            title="Refused requests by reason",
            about="503 responses per second by reason. Normal: none. BufferFull: the flusher is"
            " too slow or down. Overloaded: add pods. NotSeeded: the flusher has not accepted"
            " Redis yet.",
            unit="reqps",
            no_data="No refusals",
            stacked=True,
            queries=[Query(total(rate("busyapi_refused_total"), "reason"), "{{reason}}")],
            alerts=["BusyapiBufferFull", "BusyapiOverloaded"],
        ),
        Lines(
            title="Connections",
            about="Connections of devices and proxies by pod. At config.maxConnections idle"
            " ones are closed for new ones: add pods, or find the client that opens them.",
            unit="short",
            decimals=0,
            queries=[Query(total(select("busyapi_connections"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Refused and dropped connections",
            about="Refused: got a 503 because all other connections were busy. Dropped: the"
            " kernel's accept queue was full because the process was too slow. Normal: none.",
            unit="suffix: connections/s",
            no_data="None",
            queries=[
                Query(total(rate("busyapi_connections_refused_total")), "refused"),
                Query(total(rate("busyapi_accept_queue_overflows_total")), "dropped"),
            ],
        ),
        Lines(
            title="Bytes being received",
            about="Bytes of incomplete requests by pod, without the first few kB of each"
            " connection. At config.receivingBytes the slowest requests get 503.",
            unit="bytes",
            queries=[Query(total(select("busyapi_receiving_bytes"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Credentials that could not be reloaded",
            about="Attempts per source in which a changed file of credentials, or the keys of the"
            " provider of JWTs, could not be used. Normal: none. Meanwhile the last good ones are"
            " in use, and a revocation has no effect.",
            unit="short",
            no_data="None",
            queries=[
                Query(
                    total(increase("busyapi_credential_reload_failures_total"), "source"),
                    "{{source}}",
                )
            ],
            alerts=["BusyapiCredentialsNotReloaded"],
        ),
        Lines(
            title="JWT signatures",
            about="Signatures of JWTs that were verified, per second. valid: each token once per"
            " pod. invalid: normally none; many: someone sends forged tokens, or the provider"
            " has other keys.",
            unit="suffix: signatures/s",
            no_data="None",
            queries=[
                Query(total(rate("busyapi_jwt_signatures_total"), "result"), "{{result}}"),
            ],
            alerts=["BusyapiCredentialsRefused"],
        ),
        Lines(
            title="Requests over a limit",
            about="Requests with 429 per second, by the limit that their client exceeds: of its"
            " credential, its tenant or its address. Local: withdrawals from the buckets of rates"
            " that Redis did not execute; meanwhile each pod allows its own share of a rate.",
            unit="reqps",
            no_data="None",
            queries=[
                Query(total(rate("busyapi_rate_limited_total"), "limit"), "{{limit}}"),
                Query(total(rate("busyapi_rate_withdrawal_failures_total")), "local"),
            ],
        ),
        Lines(
            title="Committer failures by reason",
            about="How often a committer had no usable connection to Redis. Normal: none; a"
            " failover causes some. DurabilityNotMet: Redis does not meet the durability tier.",
            unit="short",
            no_data="No failures",
            queries=[
                Query(total(increase("busyapi_committer_failures_total"), "reason"), "{{reason}}")
            ],
            alerts=["BusyapiRedisUnreachable", "BusyapiDurabilityNotMet"],
        ),
    ],
)

BUFFER = Row(
    "Redis: the buffer",
    [
        Lines(
            title="Buffer fill level",
            about="The backlog, usages not archived yet, as a share of the bound. Normal: near 0."
            " At 100 % the API answers 503 BufferFull; nothing that got a 201 is lost.",
            unit="percentunit",
            steps=[(0.8, RED)],
            queries=[Query(f"{BACKLOG} / on (partition) {BOUND}", PARTITION)],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Lines(
            title="Time until the buffer is full",
            about="At the growth of the last 5 minutes (no line while it does not grow), and if"
            " the flusher stopped now. Only minutes left and the flusher is down: call"
            " someone.",
            unit="s",
            no_data="Not filling",
            logarithmic=True,
            queries=[
                Query(
                    select("busyapi:buffer_left:seconds", of=FLUSHER), "current rate, " + PARTITION
                ),
                Query(
                    f"({BOUND} - on (partition) {BACKLOG}) / (max by (partition)"
                    f" ({rate('busyapi_committed_seq', of=FLUSHER)}) > 0)",
                    "flusher down, " + PARTITION,
                ),
            ],
            alerts=["BusyapiBufferFilling"],
        ),
        Lines(
            title="Redis memory",
            about="Memory that the data of each partition's Redis uses, and its limit. Follows"
            " the backlog. At the limit Redis refuses commits and loses nothing: raise the"
            " limit.",
            unit="bytes",
            queries=[
                Query(
                    largest(select("busyapi_redis_memory_bytes", of=FLUSHER), "partition") + " > 0",
                    "used, " + PARTITION,
                ),
                Query(
                    largest(select("busyapi_redis_memory_max_bytes", of=FLUSHER), "partition")
                    + " > 0",
                    "limit, " + PARTITION,
                ),
            ],
            alerts=["BusyapiRedisMemoryHigh"],
        ),
        Lines(
            title="Idempotency-Keys",
            about="Keys that a partition holds, and the maximum. At the maximum only POST"
            " requests with a new key are refused: raise config.idempotencyKeys or the memory.",
            unit="short",
            queries=[
                Query(
                    largest(select("busyapi_idempotency_keys", of=FLUSHER), "partition") + " > 0",
                    "held, " + PARTITION,
                ),
                Query(
                    largest(select("busyapi_idempotency_keys_max", of=FLUSHER), "partition")
                    + " > 0",
                    "maximum, " + PARTITION,
                ),
            ],
            alerts=["BusyapiIdempotencyKeysFilling"],
        ),
        Number(
            title="Epoch jumps",
            about="How often ids were skipped because Redis may have lost usages, since the"
            " flushers started. Normal: 0. Each jump is a failover, or a Redis that lost its"
            " data.",
            unit="short",
            steps=[(1, RED)],
            queries=[Query(f"sum({select('busyapi_epoch_jumps_total', of=FLUSHER)})")],
            alerts=["BusyapiEpochJump"],
        ),
        Number(
            title="Ready flushers",
            about="Flushers that are ready: each has compared Redis with the archive, and accepted"
            " it. Fewer than all: new API processes may answer 503 NotSeeded for the others.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            queries=[Query(f"sum({select('busyapi_flusher_ready', of=FLUSHER)})")],
            alerts=["BusyapiFlusherNotReady"],
        ),
        Number(
            title="Committers ready",
            about="Committers that can write to Redis, over all API processes: processes times"
            " partitions. Fewer: Redis is down, or is not the server that was seeded.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            queries=[Query(f"sum({select('busyapi_committers_ready')})")],
            alerts=["BusyapiRedisUnreachable"],
        ),
        Number(
            title="Halted partitions",
            about="Partitions whose archive is missing usages that Redis refers to. Normal: 0."
            " An operator must decide: read the runbook before `busyapi archive accept-loss`.",
            unit="short",
            steps=[(1, RED)],
            queries=[Query(f"sum({select('busyapi_halted', of=FLUSHER)})")],
            alerts=["BusyapiFlusherHalted"],
        ),
        Number(
            title="Durability",
            about="Whether Redis meets the durability tier that a 201 promises, for every"
            " process. Not met: the API refuses usages, and the log names the Redis setting to"
            " change.",
            unit="short",
            steps=[(LOWEST, RED), (1, GREEN)],
            value_texts=[(0, "not met"), (1, "met")],
            queries=[Query(f"min({select('busyapi_durability_met')})")],
            alerts=["BusyapiDurabilityNotMet"],
        ),
        Number(
            title="Replicas",
            about="The replicas that confirm each usage, and how many the installation has; tier"
            " replicated only. Fewer: a replica is missing, and the flusher's log says which"
            " ones confirm.",
            unit="short",
            steps=[],
            queries=[
                Query(FEWEST_CONFIRMING, "confirming"),
                Query(f"max({select('busyapi_replicas_expected', of=FLUSHER)})", "expected"),
            ],
            alerts=["BusyapiReplicasDegraded"],
        ),
        Number(
            title="Failover",
            about="Whether the loss of the primary now would lead to a failover; tier replicated"
            " with Sentinels. Impossible: too few Sentinels answer, or no server with all"
            " usages can be promoted.",
            unit="short",
            steps=[(LOWEST, GREEN), (1, RED)],
            value_texts=[(0, "possible"), (1, "impossible")],
            queries=[Query(f"max({select('busyapi_failover_impossible', of=FLUSHER)})")],
            alerts=["BusyapiFailoverImpossible"],
        ),
        Number(
            title="Durability trusted",
            about="Whether config.redisTrust takes the place of a check, because Redis refuses"
            " CONFIG GET. Checked: every setting is as the tier requires. Trusted: nothing shows"
            " whether Redis keeps what a 201 promises, except what its operator knows.",
            unit="short",
            steps=[(LOWEST, GREEN), (1, YELLOW)],
            value_texts=[(0, "checked"), (1, "trusted")],
            queries=[Query(f"max({select('busyapi_durability_trusted')})")],
        ),
        Number(
            title="Oldest unarchived usage",
            about="Age of the oldest usage that is in Redis and not yet in the archive. Normal:"
            " below a few seconds. The objective is 60 s.",
            unit="s",
            steps=[(10, YELLOW), (60, RED)],
            queries=[Query(f"max({select('busyapi_oldest_unarchived_seconds', of=FLUSHER)})")],
            alerts=["BusyapiArchivingBurn", "BusyapiFlusherStuck"],
        ),
    ],
)

DATA_PATH = Dashboard(
    "Data path",
    "Group commit, the buffer in Redis, the flusher, the archive and the lake, step by step.",
    [COMMIT, BUFFER, FLUSH, ARCHIVE, LAKE],
)
