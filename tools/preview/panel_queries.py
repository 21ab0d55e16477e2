"""A panel's queries with a reader's choices filled in, and what Prometheus answers them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tools.preview.prometheus_api import Series, newest, over_time

Json = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """What a reader chose at the top of a dashboard, and the time that is shown."""

    url: str
    start: float
    end: float
    step: float
    rate_interval: str
    namespace: str
    release: str

    def filled(self, expr: str) -> str:
        """Put the choices where the variables are."""
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


def curves(panel: Json, choice: Choice) -> list[Curve]:
    """Ask what a panel asks; a curve of nothing but NaN is none."""
    curves = [
        Curve(_name(target["legendFormat"], entry.labels), entry.labels, points)
        for target in panel["targets"]
        for entry in _asked(target, choice)
        if (points := [*_finite(entry)])
    ]
    return sorted(curves, key=lambda entry: entry.name) if panel["type"] == "timeseries" else curves


def _asked(target: Json, choice: Choice) -> list[Series]:
    expr = choice.filled(target["expr"])
    if target["instant"]:
        return newest(choice.url, expr, choice.end)
    return over_time(choice.url, expr, choice.start, choice.end, choice.step)


def _finite(series: Series) -> Iterator[tuple[float, float]]:
    return ((at, value) for at, value in series.points if math.isfinite(value))


def _name(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend
