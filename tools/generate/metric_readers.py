"""Find the readers of metrics: alerts, panels, the autoscaler, the benchmark, `busyapi dev`.

A reader of a recording rule counts as a reader of the metrics in that rule.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = "charts/busyapi/files/rules.yaml"
DASHBOARDS = "charts/busyapi/dashboards"
OTHERS = {
    "autoscaler": (
        "k8s/observability/prometheus-adapter.yaml",
        "charts/busyapi/templates/_api.tpl",
    ),
    "benchmark": ("bench/*.py", "perf/*.py"),
    "busyapi dev": ("service/busyapi/dev/*.py",),
}

_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_NAME = re.compile(r"\bbusyapi[_:][a-z0-9_:]+\b")
_SUFFIX = re.compile(r"_(?:total|bucket|sum|count)$")

Reads = dict[str, set[str]]
"""Reader -> the names in its expressions."""


def load_rules(root: Path = ROOT) -> dict[str, Any]:
    """Read the chart's rules."""
    rules: dict[str, Any] = yaml.safe_load((root / RULES).read_text())
    return rules


def find_names(expression: str) -> set[str]:
    """Return the metrics and recording rules in an expression."""
    return set(_NAME.findall(_QUOTED.sub("", expression)))


def find_family(name: str, known: set[str]) -> str:
    """Return the family of a sample's name, or the name if there is no family."""
    return name if name in known else _SUFFIX.sub("", name)


def read_records(rules: dict[str, Any]) -> Reads:
    """Return the names that each recording rule reads."""
    return {rule["record"]: find_names(rule["expr"]) for rule in _rules(rules) if "record" in rule}


def read_alerts(rules: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Yield each alert with the names that it reads. An alert may have several rules."""
    for rule in _rules(rules):
        if "alert" in rule:
            yield rule["alert"], find_names(rule["expr"])


def read_panels(board: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Yield each panel and variable of a dashboard with the names that it reads."""
    title = board["title"].rpartition("/")[2].strip()
    for panel in board["panels"]:
        for entry in (panel, *panel.get("panels", [])):
            for target in entry.get("targets", []):
                yield f"{title}: {entry['title']}", find_names(target["expr"])
    for variable in board["templating"]["list"]:
        query = variable.get("query")
        if isinstance(query, dict):
            yield f"{title}: ${variable['name']}", find_names(query["query"])


def _rules(rules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in rules["groups"]:
        yield from group["rules"]


def read_others(root: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the readers other than rules and dashboards, with the names that they read."""
    for reader, patterns in OTHERS.items():
        for pattern in patterns:
            for path in root.glob(pattern):
                # The adapter computes busyapi_requests_per_second.
                yield reader, set(_NAME.findall(path.read_text())) - {"busyapi_requests_per_second"}


def collect_readers(root: Path = ROOT) -> Reads:
    """Return the names that every reader reads."""
    metrics: Reads = {}
    rules = load_rules(root)
    boards = (json.loads(path.read_text()) for path in sorted((root / DASHBOARDS).glob("*.json")))
    every = [
        *read_alerts(rules),
        *(panel for board in boards for panel in read_panels(board)),
        *read_others(root),
    ]
    for reader, read in every:
        metrics.setdefault(reader, set()).update(read)
    return metrics


def expand_records(read: set[str], records: Reads) -> set[str]:
    """Add the names that recording rules read, recursively."""
    left, metrics = list(read), set[str]()
    while left:
        name = left.pop()
        if name in metrics:
            continue
        metrics.add(name)
        left.extend(records.get(name, ()))
    return metrics


def find_readers(known: set[str], root: Path = ROOT) -> Reads:
    """Return the readers of each family, and of names that are no family."""
    records = read_records(load_rules(root))
    metrics: Reads = {}
    for reader, read in collect_readers(root).items():
        for name in expand_records(read, records):
            if name not in records:
                metrics.setdefault(find_family(name, known), set()).add(reader)
    return metrics
