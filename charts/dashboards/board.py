"""A dashboard: rows of panels, which this module lays out, with links and variables."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charts.dashboards.panels import DATASOURCE, Json, Panel

COLUMNS = 24
SCHEMA = 39
"""The schema of Grafana 10.4. Later versions read and upgrade it."""

UIDS = {
    "Overview": "busyapi-overview",
    "Data path": "busyapi-data-path",
    "Autoscaling and resources": "busyapi-resources",
}
"""Never change these: links to dashboards contain them."""

RUNBOOKS = "__RUNBOOKS__/"
"""The chart's template replaces it by `metrics.prometheusRule.runbookUrl`."""

ANY_PROCESS = "busyapi_build_info"
ANY_PARTITION = "busyapi_bound_usages"


@dataclass(frozen=True)
class Row:
    """A heading, and panels from left to right. A panel without room starts a new line."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One of the three dashboards."""

    title: str
    about: str
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """Return the file name without its extension."""
        return UIDS[self.title].removeprefix("busyapi-")

    def text(self) -> str:
        """Return the contents of the file."""
        return json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n"

    def json(self) -> Json:
        """Return the dashboard in the JSON model of Grafana."""
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
            "panels": [*layout(self.rows)],
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


def layout(rows: Sequence[Row]) -> Iterator[Json]:
    """Return all rows and panels with their ids and positions."""
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
    """Return the variables that a reader chooses at the top."""
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
        # Refresh when the time range changes, because releases come and go.
        "refresh": 2,
        "sort": 1,
    }
