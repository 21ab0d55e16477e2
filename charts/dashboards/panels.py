"""A panel: what it asks, and the JSON that Grafana wants for it.

Plain dictionaries: what Grafana's own library for Python would add is a builder for each of the
some thirty keys here, in a package whose newest version by number is not the newest Grafana.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
LOWEST = float("-inf")
"""In place of green."""
Steps = Sequence[tuple[float, str]]
"""From which value on a number has which colour; below the first it is green."""


@dataclass(frozen=True)
class Query:
    """One question to Prometheus, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What all panels have; `kind` and `options` are Grafana's."""

    title: str
    about: str
    """What it shows, what is normal, what to do when it is not."""
    unit: str
    """One of Grafana's: s, bytes, percentunit, reqps, short …"""
    queries: Sequence[Query]
    alerts: Sequence[str] = ()
    """Alerts about what it shows; it links to their runbooks."""
    none: str = ""
    """What is said in place of data that is not there, where that is normal."""
    needs: str = ""
    """What must run in the cluster for it to have data; empty when busyapi itself gives it."""
    width: int = 8
    """Of 24."""
    height: int = 8
    maximum: float | None = None
    decimals: int | None = None
    steps: Steps = ()

    kind = ""
    instant = False
    """Whether the newest value is all that is asked for."""

    def json(self, identity: int, x: int, y: int) -> Json:
        """Give the panel as Grafana keeps it."""
        return {
            "id": identity,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [*self.targets()],
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides()},
            "options": self.options(),
            "links": [
                {"title": f"Runbook: {each}", "url": f"${{runbooks}}{each}.md", "targetBlank": True}
                for each in self.alerts
            ],
        }

    @property
    def description(self) -> str:
        """What a reader is told, with what must be installed."""
        return f"{self.about} Needs {self.needs}." if self.needs else self.about

    def targets(self) -> Iterator[Json]:
        """Give its queries."""
        for number, query in enumerate(self.queries):
            yield {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": self.instant,
                "range": not self.instant,
            }

    def defaults(self) -> Json:
        """Give what holds for each of its series."""
        base = [] if self.steps and self.steps[0][0] == LOWEST else [(LOWEST, GREEN)]
        steps = [
            {"color": color, "value": None if value == LOWEST else value}
            for value, color in (*base, *self.steps)
        ]
        some = {"max": self.maximum, "decimals": self.decimals, "noValue": self.none or None}
        return {
            "unit": self.unit,
            **{name: each for name, each in some.items() if each is not None},
            "thresholds": {"mode": "absolute", "steps": steps},
        }

    def overrides(self) -> list[Json]:
        """Give what holds for some of its series only."""
        return []

    def options(self) -> Json:
        """Give what this kind of panel is told."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Curves over time; with `steps`, their values are lines across."""

    kind = "timeseries"
    stacked: bool = False
    colors: Sequence[tuple[str, str]] = ()
    """Beginnings of names, and the colour of such series."""
    logarithmic: bool = False

    def defaults(self) -> Json:
        """Add how the lines are drawn; they begin at zero."""
        scale: Json = {"type": "log", "log": 10} if self.logarithmic else {"type": "linear"}
        custom = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if self.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "scaleDistribution": scale,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if self.steps else "off"},
        }
        least = {} if self.logarithmic else {"min": 0}
        palette = {"color": {"mode": "palette-classic"}}
        return {**super().defaults(), **least, **palette, "custom": custom}

    def overrides(self) -> list[Json]:
        """Give the series that have a colour of their own."""
        return [
            {
                "matcher": {"id": "byRegexp", "options": f"/^{begin}/"},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
            }
            for begin, color in self.colors
        ]

    def options(self) -> Json:
        """Give legend and tooltip."""
        return {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True, kw_only=True)
class Number(Panel):
    """The newest value, large, with its colour by `steps`."""

    kind = "stat"
    width: int = 4
    height: int = 4
    words: Sequence[tuple[float, str]] = ()
    """What is said in place of a value."""

    def defaults(self) -> Json:
        """Add the words."""
        options = {
            f"{value:g}": {"index": index, "text": text}
            for index, (value, text) in enumerate(self.words)
        }
        mappings = [{"type": "value", "options": options}] if options else []
        return {**super().defaults(), "color": {"mode": "thresholds"}, "mappings": mappings}

    def options(self) -> Json:
        """Give how the number is drawn."""
        return {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }


@dataclass(frozen=True, kw_only=True)
class Heatmap(Panel):
    """Buckets of a histogram over time; `unit` is the buckets'."""

    kind = "heatmap"
    cells: str = "reqps"
    """The unit of what is counted in a bucket."""

    def targets(self) -> Iterator[Json]:
        """Say that these are buckets."""
        for each in super().targets():
            yield {**each, "format": "heatmap"}

    def options(self) -> Json:
        """Give axes and colours."""
        return {
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": self.cells},
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "unit": self.unit},
        }


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """The newest series, a row each: some of their labels, in this order."""

    kind = "table"
    instant = True
    columns: Sequence[tuple[str, str]]
    """A label, and what stands above it."""
    linked: str = ""
    """A label whose value links to a runbook of that name."""

    def targets(self) -> Iterator[Json]:
        """Ask for a table."""
        for each in super().targets():
            yield {**each, "format": "table"}

    def overrides(self) -> list[Json]:
        """Give the link of a row."""
        if not self.linked:
            return []
        link = {"title": "Runbook", "url": "${runbooks}${__value.raw}.md", "targetBlank": True}
        matcher = {"id": "byName", "options": dict(self.columns)[self.linked]}
        return [{"matcher": matcher, "properties": [{"id": "links", "value": [link]}]}]

    def json(self, identity: int, x: int, y: int) -> Json:
        """Add the choice of columns."""
        names = [name for name, _ in self.columns]
        choose = {"id": "filterFieldsByName", "options": {"include": {"names": names}}}
        order = {name: place for place, name in enumerate(names)}
        arrange = {
            "id": "organize",
            "options": {"indexByName": order, "renameByName": dict(self.columns)},
        }
        return {**super().json(identity, x, y), "transformations": [choose, arrange]}

    def options(self) -> Json:
        """Give how rows are drawn."""
        return {"showHeader": True, "cellHeight": "sm"}
