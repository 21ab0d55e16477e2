"""A dashboard: rows of panels that find their places by themselves, and what is around them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charts.dashboards.panels import DATASOURCE, Json, Panel

COLUMNS = 24
SCHEMA = 39
"""Of Grafana 10.4. Later ones read it and bring it up to theirs."""

UIDS = {
    "Overview": "busyapi-overview",
    "Data path": "busyapi-data-path",
    "Autoscaling and resources": "busyapi-resources",
}
"""Never changed: people keep links to them."""

RUNBOOKS = "RUNBOOKS/"
"""The chart's template puts `metrics.dashboards.runbooks` in its place."""

ANY_PROCESS = "busyapi_build_info"
ANY_PARTITION = "busyapi_bound_usages"


@dataclass(frozen=True)
class Row:
    """A heading, and panels from left to right; those that have no room begin a new line."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One of the three."""

    title: str
    about: str
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """Its file's name, without the ending."""
        return UIDS[self.title].removeprefix("busyapi-")

    def text(self) -> str:
        """Give the file."""
        return json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n"

    def json(self) -> Json:
        """Give it as Grafana keeps it."""
        return {
            "uid": UIDS[self.title],
            "title": f"busyapi / {self.title}",
            "description": self.about,
            "tags": ["busyapi"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [*self._links()],
            "templating": {"list": variables()},
            "panels": [*placed(self.rows)],
        }

    def _links(self) -> Iterator[Json]:
        for title, uid in UIDS.items():
            if title != self.title:
                yield {
                    "title": title,
                    "type": "link",
                    "url": f"/d/{uid}",
                    "keepTime": True,
                    "includeVars": True,
                    "targetBlank": False,
                }


def placed(rows: Sequence[Row]) -> Iterator[Json]:
    """Give each row's heading and panels their places and numbers."""
    identity, y = 0, 0
    for row in rows:
        identity += 1
        yield {
            "id": identity,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            identity += 1
            yield panel.json(identity, x, y)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def variables() -> list[Json]:
    """Give what a reader chooses at the top."""
    chosen = 'namespace="$namespace", release="$release"'
    return [
        {"name": "datasource", "type": "datasource", "label": "Data source", "query": "prometheus"},
        _choice("namespace", "Namespace", f"label_values({ANY_PROCESS}, namespace)"),
        _choice(
            "release", "Release", f'label_values({ANY_PROCESS}{{namespace="$namespace"}}, release)'
        ),
        {
            **_choice(
                "partition", "Partition", f"label_values({ANY_PARTITION}{{{chosen}}}, partition)"
            ),
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
        {"name": "runbooks", "type": "constant", "hide": 2, "query": RUNBOOKS},
    ]


def _choice(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        # When the time range changes, for pods and releases come and go.
        "refresh": 2,
        "sort": 1,
    }
