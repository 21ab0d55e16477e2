"""The metrics of a flusher about the replicas of its server."""

from busyapi.telemetry.metric_defs import PARTITION, MetricDef

REPLICAS_CONFIRMING = MetricDef(
    "busyapi_replicas_confirming",
    "gauge",
    "The replicas that must confirm each commit and hold every acknowledged usage, in the tier"
    " `replicated`. 0 while commits are refused, in other tiers, and if the flusher of another"
    " partition of the same server decides.",
    (
        "BusyapiReplicasDegraded",
        "Data path",
        "benchmark",
    ),
    (PARTITION,),
)
REPLICAS_EXPECTED = MetricDef(
    "busyapi_replicas_expected",
    "gauge",
    "The replicas that the installation has (BUSYAPI_REPLICAS), in the tier `replicated`; 0 in"
    " other tiers, and if the flusher of another partition of the same server decides.",
    (
        "BusyapiReplicasDegraded",
        "Data path",
    ),
    (PARTITION,),
)

FAILOVER_IMPOSSIBLE = MetricDef(
    "busyapi_failover_impossible",
    "gauge",
    "1 if the loss of the primary would not lead to a failover, or does not: too few Sentinels"
    " answer, or no holder can be promoted. Tier `replicated` with Sentinels; 0 elsewhere.",
    (
        "BusyapiFailoverImpossible",
        "Data path",
    ),
    (PARTITION,),
)

METRICS = (REPLICAS_CONFIRMING, REPLICAS_EXPECTED, FAILOVER_IMPOSSIBLE)
