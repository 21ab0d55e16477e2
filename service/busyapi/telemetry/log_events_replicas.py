"""The log events of the tier `replicated`: who must confirm, and who is promoted."""

from busyapi.telemetry.log_event import NO_ACTION, LogEvent

REPLICA_EVENTS = (
    LogEvent(
        "replicas_changed",
        "warning",
        ("confirming", "holders", "detail"),
        "the replicas that must confirm each commit changed; `holders` may be promoted by a"
        " failover, and `detail` is why commits are refused",
        "the runbook of BusyapiReplicasDegraded",
    ),
    LogEvent(
        "failover_started",
        "warning",
        ("down", "chosen"),
        "the Sentinels found the primary down, and the flusher chose the server to promote",
        "the runbook of BusyapiReplicasDegraded",
    ),
    LogEvent(
        "failover_blocked",
        "warning",
        ("detail",),
        "the Sentinels found the primary down, and no failover starts",
        "read `detail`; the runbook of BusyapiDurabilityNotMet",
    ),
    LogEvent(
        "failover_impossible",
        "warning",
        ("detail",),
        "no Sentinel could start a failover now; the primary still works",
        "the runbook of BusyapiFailoverImpossible",
    ),
    LogEvent(
        "priority_not_saved",
        "warning",
        ("server", "detail"),
        "a server cannot write its configuration file: after a restart it has the"
        " `replica-priority` that the file has now",
        "see that the file has `replica-priority 0`",
    ),
    LogEvent(
        "handover_started",
        "warning",
        ("primary", "chosen"),
        "the primary is about to stop, or an operator ran `busyapi hand-over`: the flusher chose"
        " the server that replaces it",
        NO_ACTION,
    ),
    LogEvent(
        "handover_refused",
        "warning",
        ("primary", "detail"),
        "`primary` asked to be replaced, and `detail` is why it is not yet. The flusher tries again"
        " until the request expires",
        "the runbook of BusyapiReplicasDegraded",
    ),
    LogEvent(
        "replica_silent",
        "warning",
        ("servers",),
        "replicas have acknowledged nothing for three seconds: they need not confirm any more, and"
        " the flusher closes their connections to the primary, so that commits continue",
        "the runbook of BusyapiReplicasDegraded",
    ),
    LogEvent(
        "replica_timeout_long",
        "warning",
        ("seconds",),
        "`repl-timeout` of Redis is long: commits wait this long for a replica that is silent",
        "set `repl-timeout` to a few seconds, above `repl-ping-replica-period`",
    ),
    LogEvent(
        "primary_accepted",
        "warning",
        ("server",),
        "the flusher forgot who held every usage, because an operator ran"
        " `busyapi archive accept-primary`",
        NO_ACTION,
    ),
    LogEvent(
        "holders_deleted",
        "warning",
        ("detail",),
        "the tier is not `replicated` any more, and every server still has `replica-priority 0`",
        "set the priority that each server should have",
    ),
)
