"""Generate the chart's dashboards from `charts.dashboards`."""

from pathlib import Path

from charts.dashboards.data_path import DATA_PATH
from charts.dashboards.overview import OVERVIEW
from charts.dashboards.resources import RESOURCES

FOLDER = "charts/busyapi/dashboards"
OWNED = f"{FOLDER}/*.json"
ALL = (OVERVIEW, DATA_PATH, RESOURCES)


def render_files(_root: Path) -> dict[str, str]:
    """Return each dashboard in the format that Grafana reads."""
    return {f"{FOLDER}/{entry.name}.json": entry.text() for entry in ALL}
