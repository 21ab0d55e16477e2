"""A parent chart with busyapi as a dependency, as users build it."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from testkit.chart.rendering import CHART, Json, load_chart

METADATA: Json = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0"}


def umbrella(folder: Path, *, values: Json | None = None, **dependency: Any) -> Path:
    """Write a parent chart with these values, and with these fields of the dependency."""
    entry = {"name": "busyapi", "version": load_chart(CHART).version, "repository": ""} | dependency
    shutil.copytree(CHART, folder / "charts" / "busyapi")
    metadata = METADATA | {"dependencies": [entry]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(metadata))
    (folder / "values.yaml").write_text(yaml.safe_dump(values or {}))
    return folder


def copy_chart_with_defaults(folder: Path, values: str = "") -> Path:
    """Copy the chart with these values as its defaults, as `--reuse-values` renders it."""
    copy = Path(shutil.copytree(CHART, folder / "busyapi"))
    (copy / "values.yaml").write_text(values)
    return copy
