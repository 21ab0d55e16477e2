"""Who reads a metric: alerts, panels, the autoscaler, the benchmark, `busyapi dev`.

A recording rule is read through: what it reads is read by whatever reads it.
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
"""Reader -> the names it reads, as written."""


def rules_of(root: Path = ROOT) -> dict[str, Any]:
    """Read the chart's rules."""
    rules: dict[str, Any] = yaml.safe_load((root / RULES).read_text())
    return rules


def names(expression: str) -> set[str]:
    """List the metrics and recording rules of an expression."""
    return set(_NAME.findall(_QUOTED.sub("", expression)))


def family(name: str, known: set[str]) -> str:
    """Give the family of a sample's name, or the name if there is none."""
    return name if name in known else _SUFFIX.sub("", name)


def recorded(rules: dict[str, Any]) -> Reads:
    """Give what each recording rule reads."""
    return {rule["record"]: names(rule["expr"]) for rule in _rules(rules) if "record" in rule}


def alerts(rules: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Give what each alert reads; one name may come more than once."""
    for rule in _rules(rules):
        if "alert" in rule:
            yield rule["alert"], names(rule["expr"])


def panels(board: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Give what each panel of a dashboard reads, and its variables."""
    title = board["title"].rpartition("/")[2].strip()
    for panel in board["panels"]:
        for entry in (panel, *panel.get("panels", [])):
            for target in entry.get("targets", []):
                yield f"{title}: {entry['title']}", names(target["expr"])
    for variable in board["templating"]["list"]:
        query = variable.get("query")
        if isinstance(query, dict):
            yield f"{title}: ${variable['name']}", names(query["query"])


def _rules(rules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in rules["groups"]:
        yield from group["rules"]


def others(root: Path) -> Iterator[tuple[str, set[str]]]:
    """Give what is read outside of Prometheus' rules and Grafana."""
    for reader, patterns in OTHERS.items():
        for pattern in patterns:
            for path in root.glob(pattern):
                # A series that the adapter makes is not one of ours.
                yield reader, set(_NAME.findall(path.read_text())) - {"busyapi_requests_per_second"}


def readers(root: Path = ROOT) -> Reads:
    """Give what every reader reads."""
    metrics: Reads = {}
    rules = rules_of(root)
    boards = (json.loads(path.read_text()) for path in sorted((root / DASHBOARDS).glob("*.json")))
    every = [*alerts(rules), *(panel for board in boards for panel in panels(board)), *others(root)]
    for reader, read in every:
        metrics.setdefault(reader, set()).update(read)
    return metrics


def through(read: set[str], records: Reads) -> set[str]:
    """Put what a recording rule reads in its place, over again."""
    left, metrics = list(read), set[str]()
    while left:
        name = left.pop()
        if name in metrics:
            continue
        metrics.add(name)
        left.extend(records.get(name, ()))
    return metrics


def read_by(known: set[str], root: Path = ROOT) -> Reads:
    """Give who reads each family; also what none is."""
    records = recorded(rules_of(root))
    metrics: Reads = {}
    for reader, read in readers(root).items():
        for name in through(read, records):
            if name not in records:
                metrics.setdefault(family(name, known), set()).add(reader)
    return metrics
