"""Overflows of the accept queue, from /proc/net/netstat.

The counter belongs to the network namespace: in a pod it counts the pod, on a host all programs.
Without the file or the counter, there is no series.
"""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from busyapi.telemetry.metric_defs import MetricDef

NETSTAT = Path("/proc/net/netstat")
OVERFLOWS_FIELD = "ListenOverflows"


def read_overflows(path: Path = NETSTAT) -> int | None:
    """Return the kernel's counter, or None without one."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            value = dict(zip(names.split(), values.split(), strict=False)).get(OVERFLOWS_FIELD, "")
            return int(value) if value.isdecimal() else None
    return None


class AcceptQueue(Collector):
    """The counter as a Prometheus metric."""

    def __init__(self, definition: MetricDef, path: Path = NETSTAT) -> None:
        self._definition = definition
        self._path = path

    def collect(self) -> Iterable[Metric]:
        """Read the counter."""
        count = read_overflows(self._path)
        if count is not None:
            yield CounterMetricFamily(self._definition.name, self._definition.help, value=count)
