"""The queries of a panel with the reader's choices filled in, and Prometheus' replies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tools.preview.prometheus_api import Series, query_instant, query_range

Json = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The variables and the time range that a reader chose at the top of a dashboard."""

    url: str
    start: float
    end: float
    step: float
    rate_interval: str
    namespace: str
    release: str

    def fill(self, expr: str) -> str:
        """Replace the variables by the choices."""
        names = {
            "$__rate_interval": self.rate_interval,
            "$namespace": self.namespace,
            "$release": self.release,
            "$partition": ".*",
        }
        for name, value in names.items():
            expr = expr.replace(name, value)
        return expr


class Curve(NamedTuple):
    """A series as a panel shows it."""

    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]


def query_curves(panel: Json, choice: Choice) -> list[Curve]:
    """Run the queries of a panel. A curve that has only NaN is left out."""
    curves = [
        Curve(_name(target["legendFormat"], entry.labels), entry.labels, points)
        for target in panel["targets"]
        for entry in _query(target, choice)
        if (points := [*_finite(entry)])
    ]
    return sorted(curves, key=lambda entry: entry.name) if panel["type"] == "timeseries" else curves


def _query(target: Json, choice: Choice) -> list[Series]:
    expr = choice.fill(target["expr"])
    if target["instant"]:
        return query_instant(choice.url, expr, choice.end)
    return query_range(choice.url, expr, choice.start, choice.end, choice.step)


def _finite(series: Series) -> Iterator[tuple[float, float]]:
    return ((at, value) for at, value in series.points if math.isfinite(value))


def _name(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend
