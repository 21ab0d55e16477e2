"""How often the kernel had no place for a new connection, from /proc/net/netstat.

The counter is of the network namespace: in a pod that is the pod's own, on a host it is of all
programs. Without the file, or without the counter in it, there is no series.
"""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from busyapi.telemetry.metric_defs import MetricDef

NETSTAT = Path("/proc/net/netstat")
OVERFLOWS_FIELD = "ListenOverflows"


def read_overflows(path: Path = NETSTAT) -> int | None:
    """Return the kernel's count; None where it has none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            found = dict(zip(names.split(), values.split(), strict=False)).get(OVERFLOWS_FIELD, "")
            return int(found) if found.isdecimal() else None
    return None


class AcceptQueue(Collector):
    """The counter as a metric."""

    def __init__(self, definition: MetricDef, path: Path = NETSTAT) -> None:
        self._definition = definition
        self._path = path

    def collect(self) -> Iterable[Metric]:
        """Read it."""
        count = read_overflows(self._path)
        if count is not None:
            yield CounterMetricFamily(self._definition.name, self._definition.help, value=count)
