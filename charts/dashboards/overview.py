"""The dashboard "Overview": objectives, the data path from left to right, and what devices see."""

from charts.dashboards.board import Dashboard, Row
from charts.dashboards.objectives import OBJECTIVES
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
    quantile,
    rate,
    select,
    total,
)


def _status(first: int) -> str:
    return f'status=~"{first}.."'


DATA_PATH_SUMMARY = Row(
    "Data path, from left to right",
    [
        Number(
            title="Requests →",
            about="Requests answered per second, with any status. Follows the devices' day. A"
            " sudden zero: no client reaches the API; check ingress and targets.",
            unit="reqps",
            steps=[(LOWEST, BLUE)],
            queries=[Query(total(rate("busyapi_requests_total")), "requests")],
            alerts=["BusyapiTargetsMissing"],
        ),
        Number(
            title="Usages stored →",
            about="Usages stored per second. Above the requests if devices send batches. Below"
            " them: requests are refused; see the errors by status.",
            unit="suffix: usages/s",
            decimals=0,
            steps=[(LOWEST, BLUE)],
            queries=[Query(total(rate("busyapi_usages_total")), "usages")],
            alerts=["BusyapiOverloaded"],
        ),
        Number(
            title="Commit p99 →",
            about="99th percentile of the commit duration: a script call and the fsync of"
            " Redis. Normal: a few milliseconds. Above 50 ms the disk of Redis is slow.",
            unit="s",
            steps=[(0.025, YELLOW), (0.05, RED)],
            queries=[Query(quantile(0.99, "busyapi_commit_seconds"), "commit p99")],
            alerts=["BusyapiRedisUnreachable", "BusyapiLatencyBurn"],
        ),
        Number(
            title="Backlog in Redis →",
            about="Usages in Redis that are not in the archive yet, over all partitions."
            " Normal: about one second of traffic. Growing: the flusher is too slow or down.",
            unit="suffix: usages",
            steps=[(100_000, YELLOW), (500_000, RED)],
            queries=[Query(f"sum({BACKLOG})", "backlog")],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Number(
            title="Flush p99 →",
            about="99th percentile of the flush duration: encoding, write and fsync. Normal:"
            " tens of milliseconds. Above a second the disk of the archive is slow.",
            unit="s",
            steps=[(0.5, YELLOW), (2, RED)],
            queries=[Query(quantile(0.99, "busyapi_flush_seconds", of=FLUSHER), "flush p99")],
            alerts=["BusyapiFlusherStuck", "BusyapiArchiveFsyncSlow"],
        ),
        Number(
            title="Usages archived",
            about="Usages archived per second. Normal: the same mean as usages stored. Zero"
            " while there is a backlog: the flusher is stuck.",
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
            about="Requests per second by status. Normal: 201 and 200. 4xx: devices send what"
            " the contract refuses. 503: refused, see `stored` in the response. Any other 5xx"
            " is a defect.",
            unit="reqps",
            stacked=True,
            colors=[("200", BLUE), ("201", GREEN), ("4", YELLOW), ("5", RED), ("503", ORANGE)],
            queries=[Query(total(rate("busyapi_requests_total"), "status") + " > 0", "{{status}}")],
            alerts=[
                "BusyapiAvailabilityBurn",
                "BusyapiTrafficGone",
                "BusyapiProbeFailing",
                "BusyapiCertificateExpiring",
                "BusyapiCredentialsRefused",
            ],
        ),
        Lines(
            title="Error rate",
            about="Share of requests that got a 5xx or a 4xx. The line is the objective for 5xx."
            " 4xx do not count against it: find the device or release that causes them.",
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
            title="Implausible times",
            about="Usages stored per second whose time is not in the years 2000 to 2099. Normal: 0."
            " Otherwise a device sends seconds or microseconds instead of milliseconds, or its"
            " clock is not set. Their responses have a Usage-Warning.",
            unit="suffix: usages/s",
            queries=[Query(total(rate("busyapi_implausible_times_total")), "implausible")],
        ),
        Lines(
            title="POST latency",
            about="Median, 99th and 99.9th percentile. The line is the objective: 50 ms for 99"
            " %. Above it: look at the commit duration on Data path.",
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
            about="POST requests per second by duration. A second band far above the first: one"
            " slow pod or partition. A widening band: the load is near the limit.",
            unit="s",
            width=16,
            queries=[
                Query(total(rate("busyapi_request_seconds_bucket", POSTS), "le"), "{{le}}"),
            ],
            alerts=["BusyapiLatencyBurn"],
        ),
        Lines(
            title="Requests by route",
            about="Requests per second by route. Lookups and counts cost more than POST"
            " requests. `none`: no route matched, so someone scans, or a client has a wrong"
            " address.",
            unit="reqps",
            queries=[Query(total(rate("busyapi_requests_total"), "route"), "{{route}}")],
        ),
        Lines(
            title="Sequential lookups",
            about="Lookups per second by clients that ask for many ids close to each other,"
            " without usages that they posted themselves. Normal: none. Someone may enumerate"
            " ids: the log event sequential_lookup names the client.",
            unit="reqps",
            no_data="None",
            queries=[Query(total(rate("busyapi_sequential_lookups_total")), "lookups")],
            alerts=["BusyapiSequentialReads"],
        ),
    ],
)

STORAGE = Row(
    "Storage and processes",
    [
        Lines(
            title="Stored and archived",
            about="Usages stored by the API and archived by the flushers, per second. Both have"
            " the same mean. Archiving comes in bursts and catches up after a pause.",
            unit="suffix: usages/s",
            queries=[
                Query(total(rate("busyapi_usages_total")), "stored"),
                Query(total(rate("busyapi_flush_usages_sum")), "archived"),
            ],
            alerts=["BusyapiFlusherStuck"],
        ),
        Lines(
            title="Backlog",
            about="Usages in Redis that are not in the archive yet. Rises while a flusher"
            " restarts, and falls again. At the bound (see Data path) the API refuses usages.",
            unit="suffix: usages",
            queries=[Query(BACKLOG, PARTITION)],
            alerts=["BusyapiBufferFilling", "BusyapiBufferFull"],
        ),
        Lines(
            title="Usages per request",
            about="Mean number of usages stored per answered request. 1: single POST requests."
            " More: batches. A drop to 0: requests are refused.",
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
            about="API processes and flushers that Prometheus scrapes. The API follows the"
            " autoscaler; there is one flusher per partition. Fewer: a pod is gone or"
            " unreachable.",
            unit="short",
            decimals=0,
            queries=[Query(f"count by (role) ({select('busyapi_build_info')})", "{{role}}")],
            alerts=["BusyapiTargetsMissing"],
        ),
        Lines(
            title="Versions",
            about="Processes by version. Two versions are normal only during a rollout.",
            unit="short",
            decimals=0,
            queries=[Query(f"count by (version) ({select('busyapi_build_info')})", "{{version}}")],
        ),
        Lines(
            title="Ready and halted flushers",
            about="Flushers that are ready, and flushers that have halted."
            " Normal: all and 0. A halted one: read its runbook first.",
            unit="short",
            decimals=0,
            queries=[
                Query(f"sum({select('busyapi_flusher_ready', of=FLUSHER)})", "ready"),
                Query(f"sum({select('busyapi_halted', of=FLUSHER)})", "halted"),
            ],
            alerts=["BusyapiFlusherNotReady", "BusyapiFlusherHalted"],
        ),
    ],
)

OVERVIEW = Dashboard(
    "Overview",
    "Objectives, the data path from the device to the archive, and what devices see.",
    [OBJECTIVES, DATA_PATH_SUMMARY, REQUESTS, STORAGE],
)
