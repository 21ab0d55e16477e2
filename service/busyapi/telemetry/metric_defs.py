"""The catalogue of metrics: each metric as data, and its readers.

Rows of one role are in `metric_defs_api.py`, `metric_defs_flusher.py` and `metric_defs_lake.py`,
rows of several roles here.
`metrics.py` builds the metrics from the rows at run time, and docs/reference/metrics.md is
generated from them. `tests/docs` compares them
with what alerts, dashboards and the autoscaler read, in both directions. The help is the text of
`# HELP`. A label's bound is its maximum number of values, or the setting that limits it.
"""

from collections.abc import Sequence
from typing import NamedTuple

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Label(NamedTuple):
    """A label and its number of values."""

    name: str
    bound: str
    values: tuple[str, ...] = ()
    """All values: each has a series from the start."""

    def __str__(self) -> str:
        values = ", ".join(f"`{value}`" for value in self.values)
        return f"`{self.name}`: {values or self.bound}"


class MetricDef(NamedTuple):
    """One metric."""

    name: str
    """The name of the family. A counter's samples end in `_total`."""
    kind: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    read_by: tuple[str, ...]
    """Names of alerts, titles of dashboards, `autoscaler`, `benchmark`, `busyapi dev`.
    docs/reference/metrics.md lists the panels."""
    labels: tuple[Label, ...] = ()
    buckets: Sequence[float] = ()

    @property
    def unit(self) -> str:
        """The base unit at the end of the name; "" for a count or a flag."""
        ending = self.name.rpartition("_")[2]
        return ending if ending in {"seconds", "bytes", "usages"} else ""

    @property
    def sample_name(self) -> str:
        """The name in a query, without the suffixes of a histogram."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


PARTITION = Label("partition", "BUSYAPI_PARTITIONS; a flusher has its own")
TIER = Label("tier", "3: `fsync`, `replicated`, `memory`; one per process")

BUILD_INFO = MetricDef(
    "busyapi_build_info",
    "gauge",
    "1; the labels describe the process. More than one version for long: a rollout is stuck.",
    (
        "BusyapiTargetsMissing",
        "BusyapiTrafficGone",
        "Autoscaling and resources",
        "Data path",
        "Overview",
    ),
    (
        Label("version", "one value per process, two during a rollout"),
        Label("python", "one value per process"),
        Label("role", "3", ("api", "flusher", "lake")),
    ),
)
DURABILITY_MET = MetricDef(
    "busyapi_durability_met",
    "gauge",
    "1 while Redis meets the configured durability tier. 0: requests are refused with the reason"
    " DurabilityNotMet, and a flusher logs `durability_not_met`; /readyz names the setting to"
    " change.",
    (
        "BusyapiDurabilityNotMet",
        "BusyapiRedisUnreachable",
        "Data path",
    ),
    (TIER,),
)
DURABILITY_TRUSTED = MetricDef(
    "busyapi_durability_trusted",
    "gauge",
    "1 while Redis refuses CONFIG GET, and BUSYAPI_REDIS_TRUST takes the place of the check whether"
    " it meets the durability tier. 0: every setting is checked.",
    ("Data path",),
)
