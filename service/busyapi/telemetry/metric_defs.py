"""The catalogue: every metric as data, and what reads it.

The rows are in `telemetry/metric_defs_api.py` and `telemetry/metric_defs_flusher.py`, those of both
roles in here.
`telemetry/metrics.py` and docs/reference/metrics.md are made from the rows, and `tests/docs` holds
what alerts, dashboards and the autoscaler read against them, both ways. The meaning is what
`# HELP` says. A label's bound is the most values it can have, or names the setting that it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Label(NamedTuple):
    """A label, and how many values it can have."""

    name: str
    bound: str
    values: tuple[str, ...] = ()
    """All of its values: each is there from the start."""

    def __str__(self) -> str:
        values = ", ".join(f"`{each}`" for each in self.values)
        return f"`{self.name}`: {values or self.bound}"


class MetricDef(NamedTuple):
    """One metric."""

    name: str
    """The family's: a counter's samples have `_total` behind it."""
    kind: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    read_by: tuple[str, ...]
    """Alerts by their names, dashboards by their titles, `autoscaler`, `benchmark`, `busyapi dev`.
    docs/reference/metrics.md tells the panels."""
    labels: tuple[Label, ...] = ()
    buckets: Sequence[float] = ()

    @property
    def unit(self) -> str:
        """The base unit, which ends the name; "" for a number of things or a yes and no."""
        ending = self.name.rpartition("_")[2]
        return ending if ending in {"seconds", "bytes", "usages"} else ""

    @property
    def sample_name(self) -> str:
        """The name to ask Prometheus for, but for a histogram's parts."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


PARTITION = Label("partition", "BUSYAPI_PARTITIONS; a flusher gives its own")
TIER = Label("tier", "3: `fsync`, `replicated`, `memory`; one a process")

BUILD_INFO = MetricDef(
    "busyapi_build_info",
    "gauge",
    "1; the labels say what runs. More than one version for long: a rollout is stuck.",
    (
        "BusyapiTargetsMissing",
        "Autoscaling and resources",
        "Data path",
        "Overview",
    ),
    (
        Label("version", "1 a process, 2 while a rollout goes on"),
        Label("python", "1 a process"),
        Label("role", "2", ("api", "flusher")),
    ),
)
DURABILITY_HELD = MetricDef(
    "busyapi_durability_held",
    "gauge",
    "1 while Redis holds the tier that a 201 stands for, 0 when it was found weaker: /readyz says"
    " which line of its settings to change.",
    (
        "BusyapiDurabilityNotHeld",
        "Data path",
    ),
    (TIER,),
)
