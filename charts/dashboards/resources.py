"""The dashboard "Autoscaling and resources": are there enough pods, and what do they use?

All metrics but the requests come from kube-state-metrics and from cAdvisor in the kubelet, which
kube-prometheus-stack scrapes by default.
"""

from charts.dashboards.board import Dashboard, Row
from charts.dashboards.panels import RED, YELLOW, Lines, Number, Query
from charts.dashboards.queries import PODS, largest, rate, select, total

SINGLE_POSTS = 'route="/api/usages"'
STATE = "kube-state-metrics"
CADVISOR = "cAdvisor (the kubelet's /metrics/cadvisor)"
HPA = 'namespace="$namespace", horizontalpodautoscaler=~"(keda-hpa-)?$release.*"'
CONTAINERS = f'{PODS}, container!="", container!="POD"'
GROUPS = f'{PODS}, container=""'
CPU, MEMORY = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"


def _of_pods(containers: str, groups: str) -> str:
    """Return the sum over a pod's containers, or its control group if they have no names."""
    return f"({total(containers, 'pod')} or {largest(groups, 'pod')})"


CPU_USED = _of_pods(rate(CPU, of=CONTAINERS), rate(CPU, of=GROUPS))
MEMORY_USED = _of_pods(select(MEMORY, of=CONTAINERS), select(MEMORY, of=GROUPS))


# Like the alert: per container, or per pod where the kubelet does not name containers.
THROTTLED = "{} / {}".format(
    *(rate(f"container_cpu_cfs_{part}_total", of=PODS) for part in ("throttled_periods", "periods"))
)


def _limit(resource: str, kind: str) -> str:
    return total(
        select(f"kube_pod_container_resource_{kind}", f'resource="{resource}"', of=PODS), "pod"
    )


SCALING = Row(
    "Autoscaler",
    [
        Number(
            title="API pods",
            height=8,
            about="API pods that the autoscaler counts. Normal: between its minimum and maximum.",
            unit="short",
            needs=STATE,
            queries=[
                Query(
                    f"sum({select('kube_horizontalpodautoscaler_status_current_replicas', of=HPA)})"
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Number(
            title="Share of the maximum",
            height=8,
            about="Desired pods as a share of the maximum. At 100 % the API cannot scale"
            " further: raise autoscaling.maxReplicas, or find out who sends.",
            unit="percentunit",
            needs=STATE,
            steps=[(0.8, YELLOW), (1, RED)],
            queries=[
                Query(
                    f"sum({select('kube_horizontalpodautoscaler_status_desired_replicas', of=HPA)})"
                    f" / sum({select('kube_horizontalpodautoscaler_spec_max_replicas', of=HPA)})"
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Lines(
            title="API pods: desired, current, limits",
            about="What the autoscaler wants, what exists, and its limits. Current follows"
            " desired within a minute. If not, pods do not start: see their events.",
            unit="short",
            needs=STATE,
            decimals=0,
            width=16,
            queries=[
                Query(f"sum({select(f'kube_horizontalpodautoscaler_{name}', of=HPA)})", legend)
                for name, legend in (
                    ("status_desired_replicas", "desired"),
                    ("status_current_replicas", "current"),
                    ("spec_min_replicas", "minimum"),
                    ("spec_max_replicas", "maximum"),
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Lines(
            title="Requests per second by pod",
            about="The autoscaler divides this by autoscaling.targetRequestsPerSecond. Pods"
            " should be similar. One far above the others has long-lived connections.",
            unit="reqps",
            width=12,
            queries=[Query(total(rate("busyapi_requests_total"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Single posts on the fast path",
            about="Share of single posts that pods answer at a third of the usual CPU. Normal:"
            " above 99 %. Lower: clients or proxies send posts that it leaves to the route, for"
            " example in chunks or with gzip.",
            unit="percentunit",
            width=12,
            maximum=1,
            queries=[
                Query(
                    f"{total(rate('busyapi_fast_path_requests_total', SINGLE_POSTS), 'pod')}"
                    f" / ({total(rate('busyapi_requests_total', SINGLE_POSTS), 'pod')} > 0)",
                    "{{pod}}",
                )
            ],
        ),
        Lines(
            title="Ready pods",
            about="Ready pods of API, flushers and Valkey. One fewer for some seconds is a"
            " rollout. Longer: run kubectl describe for the missing pod.",
            unit="short",
            needs=STATE,
            decimals=0,
            width=12,
            queries=[
                Query(
                    total(select("kube_pod_status_ready", 'condition="true"', of=PODS), "pod"),
                    "{{pod}}",
                )
            ],
            alerts=["BusyapiTargetsMissing"],
        ),
    ],
)

USED = Row(
    "Pod resources",
    [
        Lines(
            title="CPU",
            about="Cores used by pod. An API process uses at most one. The autoscaler keeps API"
            " pods below autoscaling.targetCPUUtilizationPercentage of their request.",
            unit="suffix: cores",
            needs=CADVISOR,
            queries=[Query(CPU_USED, "{{pod}}")],
        ),
        Lines(
            title="CPU usage / request",
            about="Used cores as a share of the request. Above 100 % a pod depends on spare"
            " CPU: raise the request, or make the autoscaler start earlier.",
            unit="percentunit",
            needs=f"{STATE} and {CADVISOR}",
            steps=[(1, RED)],
            queries=[Query(f"{CPU_USED} / {_limit('cpu', 'requests')}", "{{pod}}")],
        ),
        Lines(
            title="CPU throttled",
            about="Share of periods in which the CPU limit slowed a pod down. The chart sets no"
            " limit, so normally there is no data. Otherwise remove the limit.",
            unit="percentunit",
            no_data="No CPU limit, or no cAdvisor",
            needs=CADVISOR,
            steps=[(0.25, RED)],
            queries=[Query(largest(THROTTLED, "pod"), "{{pod}}")],
            alerts=["BusyapiPodsThrottled"],
        ),
        Lines(
            title="Memory",
            about="Working set by pod. Normal: flat for API and flusher. Valkey follows the"
            " backlog.",
            unit="bytes",
            needs=CADVISOR,
            queries=[Query(MEMORY_USED, "{{pod}}")],
        ),
        Lines(
            title="Memory used of limit",
            about="Working set as a share of the memory limit. At 100 % the kernel kills the"
            " pod. Valkey refuses usages before that, at valkey.maxmemory.",
            unit="percentunit",
            needs=f"{STATE} and {CADVISOR}",
            steps=[(0.9, RED)],
            queries=[Query(f"{MEMORY_USED} / {_limit('memory', 'limits')}", "{{pod}}")],
            alerts=["BusyapiRedisMemoryHigh"],
        ),
        Lines(
            title="Restarts",
            about="Container restarts in the last hour. Normal: 0. Otherwise check kubectl logs"
            " --previous, and whether memory reached its limit.",
            unit="short",
            needs=STATE,
            decimals=0,
            queries=[
                Query(
                    "sum by (pod) (increase("
                    f"{select('kube_pod_container_status_restarts_total', of=PODS)}[1h]))",
                    "{{pod}}",
                )
            ],
        ),
        Lines(
            title="Volumes used",
            about="Used share of each volume claim of the release, as the kubelet reports it."
            " Archive volumes grow. Valkey's shrinks when its file is rewritten.",
            unit="percentunit",
            needs="the kubelet's own /metrics",
            maximum=1,
            steps=[(0.85, RED)],
            width=24,
            queries=[
                Query(
                    "1 - max by (persistentvolumeclaim) (kubelet_volume_stats_available_bytes"
                    '{namespace="$namespace", persistentvolumeclaim=~".*-$release-.*"}'
                    " / kubelet_volume_stats_capacity_bytes)",
                    "{{persistentvolumeclaim}}",
                )
            ],
            alerts=["BusyapiArchiveDiskFilling", "BusyapiRedisDiskFilling"],
        ),
    ],
)

RESOURCES = Dashboard(
    "Autoscaling and resources",
    "API pods and their autoscaler; CPU, memory and disks of all pods of a release.",
    [SCALING, USED],
)
