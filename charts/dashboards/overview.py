"""Overview: is it well, where on a usage's way is it not, and what do devices see of it?"""

from charts.dashboards.board import Dashboard, Row
from charts.dashboards.objectives import WELL
from charts.dashboards.panels import (
    BLUE,
    GREEN,
    LOWEST,
    ORANGE,
    RED,
    YELLOW,
    Heatmap,
    Lines,
    Number,
    Query,
)
from charts.dashboards.queries import (
    BACKLOG,
    FLUSHER,
    PARTITION,
    POSTS,
    picked,
    quantile,
    rate,
    total,
)


def _status(first: int) -> str:
    return f'status=~"{first}.."'


WAY = Row(
    "A usage's way, from left to right",
    [
        Number(
            title="Requests →",
            about="Requests a second that were answered, whatever the status. Follows the devices'"
            " day; a sudden zero means that nobody reaches the API: look at ingress and targets.",
            unit="reqps",
            steps=[(LOWEST, BLUE)],
            queries=[Query(total(rate("busyapi_requests_total")), "requests")],
            alerts=["BusyapiTargetsMissing"],
        ),
        Number(
            title="Usages stored →",
            about="Usages a second that were stored. Above the requests when devices send batches."
            " Below them: requests are refused; see errors by status.",
            unit="suffix: usages/s",
            decimals=0,
            steps=[(LOWEST, BLUE)],
            queries=[Query(total(rate("busyapi_usages_total")), "usages")],
            alerts=["BusyapiOverloaded"],
        ),
        Number(
            title="Commit p99 →",
            about="Time in which 99 % of commits were answered: a script call and the fsync of"
            " Redis. Normal is a few milliseconds; above 50 ms the disk of Redis is slow.",
            unit="s",
            steps=[(0.025, YELLOW), (0.05, RED)],
            queries=[Query(quantile(0.99, "busyapi_commit_seconds"), "commit p99")],
            alerts=["BusyapiRedisUnreachable", "BusyapiLatencyBurn"],
        ),
        Number(
            title="Backlog in Redis →",
            about="Usages that Redis holds and the archive does not have yet, in all partitions."
            " Normal is about what comes in a second. Growing: the flusher is too slow or away.",
            unit="suffix: usages",
            steps=[(100_000, YELLOW), (500_000, RED)],
            queries=[Query(f"sum({BACKLOG})", "backlog")],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Number(
            title="Flush p99 →",
            about="Time in which 99 % of flushes were rendered, written and fsynced. Normal is"
            " tens of milliseconds; above a second the disk of the archive is slow.",
            unit="s",
            steps=[(0.5, YELLOW), (2, RED)],
            queries=[Query(quantile(0.99, "busyapi_flush_seconds", of=FLUSHER), "flush p99")],
            alerts=["BusyapiFlusherStuck", "BusyapiArchiveFsyncSlow"],
        ),
        Number(
            title="Usages archived",
            about="Usages a second that reached the archive. Normal is what the API stores, with"
            " the same mean. Zero while usages wait: the flusher is stuck.",
            unit="suffix: usages/s",
            decimals=0,
            steps=[(LOWEST, BLUE)],
            queries=[
                Query(total(rate("busyapi_flush_usages_sum", of=FLUSHER)), "archived"),
            ],
            alerts=["BusyapiFlusherStuck", "BusyapiArchiveWriteFailing"],
        ),
    ],
)

REQUESTS = Row(
    "What devices see",
    [
        Lines(
            title="Requests by status",
            about="Requests a second by status. 201 and 200 are normal; 4xx are devices that send"
            " what the contract refuses; 503 are refusals, safe to repeat or not known; another"
            " 5xx is a defect.",
            unit="reqps",
            stacked=True,
            colors=[("200", BLUE), ("201", GREEN), ("4", YELLOW), ("5", RED), ("503", ORANGE)],
            queries=[Query(total(rate("busyapi_requests_total"), "status") + " > 0", "{{status}}")],
            alerts=["BusyapiAvailabilityBurn"],
        ),
        Lines(
            title="Error rate",
            about="Share of requests with a 5xx, and with a 4xx. The line is what the objective"
            " allows on average for 5xx. 4xx do not count: find the device or release that began.",
            unit="percentunit",
            steps=[(0.001, RED)],
            colors=[("4", YELLOW), ("5", RED)],
            queries=[
                Query(
                    f"({total(rate('busyapi_requests_total', _status(n)))}"
                    f" or vector(0)) / ({total(rate('busyapi_requests_total'))} > 0)",
                    f"{n}xx",
                )
                for n in (5, 4)
            ],
            alerts=["BusyapiAvailabilityBurn"],
        ),
        Lines(
            title="POST latency",
            about="Half, 99 % and 99.9 % of POSTs were answered within this time. The line is the"
            " objective's 50 ms for 99 %. Above it: look at the commit time on Data path.",
            unit="s",
            steps=[(0.05, RED)],
            queries=[
                Query(quantile(q, "busyapi_request_seconds", POSTS), name)
                for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
            ],
            alerts=["BusyapiLatencyBurn"],
        ),
        Heatmap(
            title="POST latency distribution",
            about="How many POSTs a second took how long. A second band far above the first is one"
            " pod or one partition that is slow; a band that widens is load near the limit.",
            unit="s",
            width=16,
            queries=[
                Query(total(rate("busyapi_request_seconds_bucket", POSTS), "le"), "{{le}}"),
            ],
            alerts=["BusyapiLatencyBurn"],
        ),
        Lines(
            title="Requests by route",
            about="Requests a second by route. Reads of /api/usages/{id} and counts cost more than"
            " posts; `none` is what met no route: somebody scans, or a client has a wrong address.",
            unit="reqps",
            queries=[Query(total(rate("busyapi_requests_total"), "route"), "{{route}}")],
        ),
    ],
)

BEHIND = Row(
    "Behind the answer",
    [
        Lines(
            title="Stored and archived",
            about="Usages a second that the API stored and that the flushers archived. Both have"
            " the same mean; archived comes in bursts and catches up after a pause.",
            unit="suffix: usages/s",
            queries=[
                Query(total(rate("busyapi_usages_total")), "stored"),
                Query(total(rate("busyapi_flush_usages_sum")), "archived"),
            ],
            alerts=["BusyapiFlusherStuck"],
        ),
        Lines(
            title="Backlog",
            about="Usages that Redis holds and the archive does not have yet. Rises while a flusher"
            " restarts and falls again. At the bound, which Data path shows, the API refuses.",
            unit="suffix: usages",
            queries=[Query(BACKLOG, PARTITION)],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Lines(
            title="Usages per request",
            about="Mean number of usages that one answered request stored. 1 is single posts;"
            " more are batches. A drop to 0 is load that is refused.",
            unit="short",
            queries=[
                Query(
                    f"{total(rate('busyapi_usages_total'))}"
                    f" / ({total(rate('busyapi_requests_total', POSTS))} > 0)",
                    "mean",
                )
            ],
        ),
        Lines(
            title="Processes",
            about="API processes and flushers that are scraped. API follows the autoscaler;"
            " flushers are as many as partitions. Fewer: a pod is gone, or not reached.",
            unit="short",
            decimals=0,
            queries=[Query(f"count by (role) ({picked('busyapi_build_info')})", "{{role}}")],
            alerts=["BusyapiTargetsMissing"],
        ),
        Lines(
            title="Versions",
            about="Processes by version. Two versions are normal during a rollout only.",
            unit="short",
            decimals=0,
            queries=[Query(f"count by (version) ({picked('busyapi_build_info')})", "{{version}}")],
        ),
        Lines(
            title="Seeded and halted partitions",
            about="Partitions that a flusher vouches for, and that only a person may set going"
            " again. Normal is all and 0. A halted one: read its runbook before anything else.",
            unit="short",
            decimals=0,
            queries=[
                Query(f"sum({picked('busyapi_seeded', of=FLUSHER)})", "seeded"),
                Query(f"sum({picked('busyapi_halted', of=FLUSHER)})", "halted"),
            ],
            alerts=["BusyapiPartitionNotSeeded", "BusyapiFlusherHalted"],
        ),
    ],
)

OVERVIEW = Dashboard(
    "Overview",
    "Objectives, a usage's way from the device to the archive, and what devices see.",
    [WELL, WAY, REQUESTS, BEHIND],
)
