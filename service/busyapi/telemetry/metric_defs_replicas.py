"""The metrics of a flusher about the replicas of its server."""

from busyapi.telemetry.metric_defs import PARTITION, MetricDef

REPLICAS_CONFIRMING = MetricDef(
    "busyapi_replicas_confirming",
    "gauge",
    "The replicas that must confirm each commit and hold every acknowledged usage, in the tier"
    " `replicated`. 0 while commits are refused, in other tiers, and if the flusher of partition 0"
    " decides.",
    (
        "BusyapiReplicasDegraded",
        "Data path",
    ),
    (PARTITION,),
)
REPLICAS_EXPECTED = MetricDef(
    "busyapi_replicas_expected",
    "gauge",
    "The replicas that the installation has (BUSYAPI_REPLICAS), in the tier `replicated`; 0 in"
    " other tiers, and if the flusher of partition 0 decides.",
    (
        "BusyapiReplicasDegraded",
        "Data path",
    ),
    (PARTITION,),
)

METRICS = (REPLICAS_CONFIRMING, REPLICAS_EXPECTED)
