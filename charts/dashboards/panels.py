"""A panel: its queries, and its JSON for Grafana.

The JSON is built from plain dictionaries. Grafana's Python library would only add a builder for
each of about thirty keys, and its versions do not follow those of Grafana.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
LOWEST = float("-inf")
"""The value of a first step that replaces the default green."""
Steps = Sequence[tuple[float, str]]
"""From this value on a number has this colour. Below the first step it is green."""


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The fields of every panel. `kind` and `options` are terms of Grafana."""

    title: str
    about: str
    """What the panel shows, what is normal, and what to do otherwise."""
    unit: str
    """A unit of Grafana: s, bytes, percentunit, reqps, short …"""
    queries: Sequence[Query]
    alerts: Sequence[str] = ()
    """Alerts about the same data. The panel links to their runbooks."""
    no_data: str = ""
    """The text shown when there is normally no data."""
    needs: str = ""
    """What the cluster must run to provide the data; empty for metrics of busyapi."""
    width: int = 8
    """In columns, of 24."""
    height: int = 8
    maximum: float | None = None
    decimals: int | None = None
    steps: Steps = ()

    kind = ""
    instant = False
    """Whether the panel queries only the newest value."""

    def json(self, identity: int, x: int, y: int) -> Json:
        """Return the panel in the JSON model of Grafana."""
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
                {
                    "title": f"Runbook: {alert}",
                    "url": f"${{runbooks}}{alert}.md",
                    "targetBlank": True,
                }
                for alert in self.alerts
            ],
        }

    @property
    def description(self) -> str:
        """Return the text for readers, including what must be installed."""
        return f"{self.about} Needs {self.needs}." if self.needs else self.about

    def targets(self) -> Iterator[Json]:
        """Return the queries."""
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
        """Return the settings of all series."""
        base = [] if self.steps and self.steps[0][0] == LOWEST else [(LOWEST, GREEN)]
        steps = [
            {"color": color, "value": None if value == LOWEST else value}
            for value, color in (*base, *self.steps)
        ]
        optional = {"max": self.maximum, "decimals": self.decimals, "noValue": self.no_data or None}
        return {
            "unit": self.unit,
            **{name: value for name, value in optional.items() if value is not None},
            "thresholds": {"mode": "absolute", "steps": steps},
        }

    def overrides(self) -> list[Json]:
        """Return the settings of some series."""
        return []

    def options(self) -> Json:
        """Return the options of this kind of panel."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Lines over time. `steps` are drawn as horizontal lines."""

    kind = "timeseries"
    stacked: bool = False
    colors: Sequence[tuple[str, str]] = ()
    """Prefixes of series names, and their colours."""
    logarithmic: bool = False

    def defaults(self) -> Json:
        """Return the settings of all series, with the style of lines. The axis begins at zero."""
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
        """Return the series with fixed colours."""
        return [
            {
                "matcher": {"id": "byRegexp", "options": f"/^{begin}/"},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
            }
            for begin, color in self.colors
        ]

    def options(self) -> Json:
        """Return legend and tooltip."""
        return {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True, kw_only=True)
class Number(Panel):
    """The newest value in large type, coloured by `steps`."""

    kind = "stat"
    width: int = 4
    height: int = 4
    value_texts: Sequence[tuple[float, str]] = ()
    """Texts shown instead of values."""

    def defaults(self) -> Json:
        """Return the settings of all series, with the texts for values."""
        options = {
            f"{value:g}": {"index": index, "text": text}
            for index, (value, text) in enumerate(self.value_texts)
        }
        mappings = [{"type": "value", "options": options}] if options else []
        return {**super().defaults(), "color": {"mode": "thresholds"}, "mappings": mappings}

    def options(self) -> Json:
        """Return the style of the number."""
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
    """Buckets of a histogram over time. `unit` is the unit of the buckets."""

    kind = "heatmap"
    cells: str = "reqps"
    """The unit of the count in a bucket."""

    def targets(self) -> Iterator[Json]:
        """Return the queries in heatmap format."""
        for target in super().targets():
            yield {**target, "format": "heatmap"}

    def options(self) -> Json:
        """Return axes and colours."""
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
    """The newest series, one per row, with some of their labels as columns."""

    kind = "table"
    instant = True
    columns: Sequence[tuple[str, str]]
    """Labels and their column titles."""
    linked: str = ""
    """A label whose value links to the runbook of that name."""

    def targets(self) -> Iterator[Json]:
        """Return the queries in table format."""
        for target in super().targets():
            yield {**target, "format": "table"}

    def overrides(self) -> list[Json]:
        """Return the link of each row."""
        if not self.linked:
            return []
        link = {"title": "Runbook", "url": "${runbooks}${__value.raw}.md", "targetBlank": True}
        matcher = {"id": "byName", "options": dict(self.columns)[self.linked]}
        return [{"matcher": matcher, "properties": [{"id": "links", "value": [link]}]}]

    def json(self, identity: int, x: int, y: int) -> Json:
        """Return the panel with its selection of columns."""
        names = [name for name, _ in self.columns]
        choose = {"id": "filterFieldsByName", "options": {"include": {"names": names}}}
        order = {name: place for place, name in enumerate(names)}
        arrange = {
            "id": "organize",
            "options": {"indexByName": order, "renameByName": dict(self.columns)},
        }
        return {**super().json(identity, x, y), "transformations": [choose, arrange]}

    def options(self) -> Json:
        """Return the style of rows."""
        return {"showHeader": True, "cellHeight": "sm"}
