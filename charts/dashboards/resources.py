"""Autoscaling and resources: are there enough pods, and what do they use of the machine?

All but the requests come from kube-state-metrics and from cAdvisor in the kubelet, which
kube-prometheus-stack scrapes as it is installed.
"""

from charts.dashboards.board import Dashboard, Row
from charts.dashboards.panels import RED, YELLOW, Lines, Number, Query
from charts.dashboards.queries import PODS, largest, picked, rate, total

STATE = "kube-state-metrics"
CADVISOR = "cAdvisor (the kubelet's /metrics/cadvisor)"
HPA = 'namespace="$namespace", horizontalpodautoscaler=~"(keda-hpa-)?$release.*"'
CONTAINERS = f'{PODS}, container!="", container!="POD"'
GROUPS = f'{PODS}, container=""'
CPU, MEMORY = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"


def _of_pods(containers: str, groups: str) -> str:
    """Sum a pod's containers; its control group says the same where they have no names."""
    return f"({total(containers, 'pod')} or {largest(groups, 'pod')})"


CPU_USED = _of_pods(rate(CPU, of=CONTAINERS), rate(CPU, of=GROUPS))
MEMORY_USED = _of_pods(picked(MEMORY, of=CONTAINERS), picked(MEMORY, of=GROUPS))


# As the alert: a container's, or its pod's where the kubelet names no containers.
THROTTLED = "{} / {}".format(
    *(rate(f"container_cpu_cfs_{each}_total", of=PODS) for each in ("throttled_periods", "periods"))
)


def _limit(resource: str, kind: str) -> str:
    return total(
        picked(f"kube_pod_container_resource_{kind}", f'resource="{resource}"', of=PODS), "pod"
    )


SCALING = Row(
    "Autoscaler",
    [
        Number(
            title="API pods",
            height=8,
            about="Pods of the API that the autoscaler counts. Between the two limits is normal.",
            unit="short",
            needs=STATE,
            queries=[
                Query(
                    f"sum({picked('kube_horizontalpodautoscaler_status_current_replicas', of=HPA)})"
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Number(
            title="Share of the maximum",
            height=8,
            about="Share of the largest number of pods that is wanted. At 100 % nothing is left for"
            " more load: raise autoscaling.maxReplicas, or find out who sends.",
            unit="percentunit",
            needs=STATE,
            steps=[(0.8, YELLOW), (1, RED)],
            queries=[
                Query(
                    f"sum({picked('kube_horizontalpodautoscaler_status_desired_replicas', of=HPA)})"
                    f" / sum({picked('kube_horizontalpodautoscaler_spec_max_replicas', of=HPA)})"
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Lines(
            title="API pods: desired, current, limits",
            about="What the autoscaler wants, what is there, and its limits. There follows wanted"
            " within a minute; if not, pods do not start: look at their events.",
            unit="short",
            needs=STATE,
            decimals=0,
            width=16,
            queries=[
                Query(f"sum({picked(f'kube_horizontalpodautoscaler_{name}', of=HPA)})", legend)
                for name, legend in (
                    ("status_desired_replicas", "wanted"),
                    ("status_current_replicas", "there"),
                    ("spec_min_replicas", "minimum"),
                    ("spec_max_replicas", "maximum"),
                )
            ],
            alerts=["BusyapiAutoscalerAtMaximum"],
        ),
        Lines(
            title="Requests per second by pod",
            about="What the autoscaler divides by autoscaling.targetRequestsPerSecond. Pods should"
            " be alike: one far above the others has long-lived connections of its own.",
            unit="reqps",
            width=12,
            queries=[Query(total(rate("busyapi_requests_total"), "pod"), "{{pod}}")],
        ),
        Lines(
            title="Ready pods",
            about="Ready pods of API, flushers and Valkey. One fewer for some seconds is a rollout;"
            " longer: kubectl describe the pod that is missing.",
            unit="short",
            needs=STATE,
            decimals=0,
            width=12,
            queries=[
                Query(
                    total(picked("kube_pod_status_ready", 'condition="true"', of=PODS), "pod"),
                    "{{pod}}",
                )
            ],
            alerts=["BusyapiTargetsMissing"],
        ),
    ],
)

USED = Row(
    "What pods use",
    [
        Lines(
            title="CPU",
            about="Cores that each pod uses. An API process uses one at most; the autoscaler keeps"
            " them below autoscaling.targetCPUUtilizationPercentage of their request.",
            unit="suffix: cores",
            needs=CADVISOR,
            queries=[Query(CPU_USED, "{{pod}}")],
        ),
        Lines(
            title="CPU used of request",
            about="Cores used of those requested. Above 100 % a pod lives on what others leave:"
            " raise the request, or let the autoscaler begin earlier.",
            unit="percentunit",
            needs=f"{STATE} and {CADVISOR}",
            steps=[(1, RED)],
            queries=[Query(f"{CPU_USED} / {_limit('cpu', 'requests')}", "{{pod}}")],
        ),
        Lines(
            title="CPU throttled",
            about="Share of periods in which a pod was held back by its CPU limit. The chart sets"
            " none, and then there is nothing to show; otherwise take the limit away.",
            unit="percentunit",
            none="No CPU limit, or no cAdvisor",
            needs=CADVISOR,
            steps=[(0.25, RED)],
            queries=[Query(largest(THROTTLED, "pod"), "{{pod}}")],
            alerts=["BusyapiPodsThrottled"],
        ),
        Lines(
            title="Memory",
            about="Working set of each pod. Flat is normal for API and flusher; Valkey's follows"
            " the backlog.",
            unit="bytes",
            needs=CADVISOR,
            queries=[Query(MEMORY_USED, "{{pod}}")],
        ),
        Lines(
            title="Memory used of limit",
            about="Working set of each pod, of its limit. At 100 % the kernel kills it. Valkey"
            " refuses before that, at valkey.maxmemory.",
            unit="percentunit",
            needs=f"{STATE} and {CADVISOR}",
            steps=[(0.9, RED)],
            queries=[Query(f"{MEMORY_USED} / {_limit('memory', 'limits')}", "{{pod}}")],
            alerts=["BusyapiRedisMemoryHigh"],
        ),
        Lines(
            title="Restarts",
            about="Containers that were started again, in the last hour. 0 is normal. Look at"
            " kubectl logs --previous, and at whether memory was at its limit.",
            unit="short",
            needs=STATE,
            decimals=0,
            queries=[
                Query(
                    "sum by (pod) (increase("
                    f"{picked('kube_pod_container_status_restarts_total', of=PODS)}[1h]))",
                    "{{pod}}",
                )
            ],
        ),
        Lines(
            title="Volumes used",
            about="Used share of each volume claim of the release, as the kubelet sees it. Archive"
            " volumes grow; Valkey's is rewritten and falls back.",
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
            alerts=["BusyapiArchiveDiskFilling"],
        ),
    ],
)

RESOURCES = Dashboard(
    "Autoscaling and resources",
    "Pods of the API and what scales them; CPU, memory and disks of all pods of a release.",
    [SCALING, USED],
)
