"""Rules for runbooks: their structure, and the names that they may use."""

import builtins
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from busyapi import cli, errors
from busyapi.api import archive_client
from busyapi.errors import ConfigError
from busyapi.settings import Settings
from busyapi.telemetry.lake_metrics import LakeMetrics, LakeProgress
from busyapi.telemetry.log_events import EVENTS
from busyapi.telemetry.metrics import ApiMetrics, FlusherMetrics
from testkit.docs.links import find_broken_links
from testkit.docs.runbooks import RECOVERY, RUNBOOKS, Block, Page

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
MODULES = sorted((ROOT / "service" / "busyapi").rglob("*.py"))
HEADINGS = ["Meaning", "Impact", "Diagnose", "Fix", "Do not", RECOVERY, "Escalate"]
LABELS = {
    "": "",
    "reads": "",
    "changes": "**Changes the release:**",
    "decides": "**Cannot be undone:**",
}
"""Mark of a block -> the line above it."""
NAMESPACE_SELECTOR = 'namespace="busyapi"'
"""In each selector of a query: the namespace that `export NAMESPACE=busyapi` sets."""
BOARDS = "Overview|Data path|Autoscaling and resources"
FOREIGN_METRICS = {
    "up",
    "container_cpu_cfs_throttled_periods_total",
    "kube_horizontalpodautoscaler_",
    "kubelet_volume_stats_",
    "probe_ssl_earliest_cert_expiry",
    "probe_success",
}
"""Prefixes of metrics of cAdvisor, the kubelet, kube-state-metrics, blackbox-exporter and
Prometheus itself."""
REASONS = {name for name in (*vars(errors), *vars(archive_client)) if name[0].isupper()} | {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, OSError)
}
_PANELS = re.compile(rf"anels? ((?:\*[^*]+\*(?:, | and )?)+) of \*({BOARDS})\*")
_LOGGED = re.compile(r"kubectl .*?logs .*?\| grep (?:-E )?'?([a-z_|]+)'?|log event\s+`([a-z_]+)`")
_LITERAL = re.compile(r"--set [\w.]+=\d|\"\w+\":\d|--replicas=[1-9]")
"""A number in a command: on-call would paste it, whatever the present value is."""
_ARCHIVE = re.compile(r"-- (busyapi archive [^|>&\n]+)")
_REASONS = re.compile(r"^ *\| *reason .*\n(?: *\|.*\n)+", re.MULTILINE)
_MESSAGES = re.compile(r"^ *\| (?:message contains|why) .*\n(?: *\|.*\n)+", re.MULTILINE)
_TEST = re.compile(r"(\S+\.py)::(\w+)")
_INTO_QUERIES = re.compile(
    r"^Set the variables? from the labels? of the alert, "
    r"and write its namespace into the queries\.$",
    re.MULTILINE,
)
_USED = re.compile(r"\$\{?([A-Z][A-Z_]*)\b")
_ASSIGNED = re.compile(r"\b([A-Z][A-Z_]*)=")


@dataclass(frozen=True)
class Known:
    """Everything that a runbook may name."""

    alerts: dict[str, set[str]]
    """Alert -> severities."""
    panels: dict[str, set[str]]
    """Dashboard -> titles of its panels."""
    links: dict[str, set[str]]
    """Alert -> titles of the panels that link to its page."""
    metrics: set[str]
    """Including recording rules."""
    settings: set[str]
    values: dict[str, Any]
    events: set[str]
    source: str
    """The source of all modules of the service."""


def collect_known_names() -> Known:
    """Collect the names that a runbook may use from their sources."""
    return Known(
        alerts=_alerts(),
        panels=dict(_boards()),
        links=panels_by_page(),
        metrics={*_metrics(), *(rule["record"] for rule in _rules() if "record" in rule)},
        settings={str(field.metadata["name"]) for field in fields(Settings)},
        values=yaml.safe_load((CHART / "values.yaml").read_text()),
        events={event.name for event in EVENTS},
        source="".join(module.read_text() for module in MODULES),
    )


def _alerts() -> dict[str, set[str]]:
    severities: dict[str, set[str]] = {}
    for rule in _rules():
        if "alert" in rule:
            severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    return severities


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]:
        yield from group["rules"]


def boards() -> Iterator[dict[str, Any]]:
    """Yield each dashboard of the chart."""
    for path in sorted((CHART / "dashboards").glob("*.json")):
        yield json.loads(path.read_text())


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels of a dashboard, including those within rows."""
    for panel in board["panels"]:
        yield from (panel, *panel.get("panels", []))


def _boards() -> Iterator[tuple[str, set[str]]]:
    for board in boards():
        title = board["title"].rpartition(" / ")[2]
        yield title, {panel["title"] for panel in panels(board) if panel["type"] != "row"}


def panels_by_page() -> dict[str, set[str]]:
    """Return the titles of the panels that link to each page."""
    titles: dict[str, set[str]] = {}
    for panel in (item for board in boards() for item in panels(board)):
        for link in panel.get("links", []):
            if link["title"].startswith("Runbook"):
                page = re.sub(r".*[/}]", "", link["url"]).removesuffix(".md")
                titles.setdefault(page, set()).add(panel["title"])
    return titles


def _metrics() -> Iterator[str]:
    nothing = LakeProgress(0, 0, [])
    for metrics in (ApiMetrics("fsync"), FlusherMetrics("fsync", 0), LakeMetrics(lambda: nothing)):
        for family in metrics.registry.collect():
            yield from (family.name + end for end in ("", "_total", "_bucket", "_sum", "_count"))


def check_page(page: Page, known: Known) -> list[str]:
    """Check a page against every rule, and return its problems."""
    rules = (
        _check_structure,
        _check_marks,
        _check_variables,
        _check_queries,
        _check_names,
        _check_commands,
        _check_links,
    )
    return [problem for rule in rules for problem in rule(page, known)]


def _check_structure(page: Page, known: Known) -> Iterator[str]:
    if page.name not in known.alerts:
        yield f"there is no alert {page.name}"
    if not page.text.startswith(f"# {page.name}\n\n"):
        yield "its title is not the alert's name"
    if page.headings != HEADINGS:
        yield f"its headings are {page.headings}"
    if not page.of("promql"):
        yield "no query"
    for section in ("Diagnose", RECOVERY):
        if not any(
            block.kind == "sh" and block.section == section and not _is_export(block)
            for block in page.blocks
        ):
            yield f"no command under {section}"
    for section in {block.section for block in page.blocks if block.marks} - {"Fix"}:
        yield f"a command under {section} changes something"


def _is_export(block: Block) -> bool:
    return block.text.startswith("export ")


def _check_marks(page: Page, known: Known) -> Iterator[str]:
    """Check that a reader sees what a command does, and that a named test exists.

    A command that cannot be undone, or that has a word to replace, names the test that runs it.
    """
    del known
    for block in page.blocks:
        mark, *test = block.marks or [""]
        if mark not in LABELS:
            yield f"a block is marked {mark}"
        elif (label := LABELS[mark]) != block.label and (label or block.label in LABELS.values()):
            yield f"above a block marked {mark} is {block.label!r}, not {label!r}"
        if mark and (number := _LITERAL.search(block.text)):
            yield f"a command that changes something has a number, not a word: {number[0]}"
        if test or mark in {"reads", "decides"}:
            yield from _check_test(" ".join(test))


def _check_test(text: str) -> Iterator[str]:
    test = _TEST.fullmatch(text)
    path = ROOT / test[1] if test else None
    if test is None or path is None or not path.exists():
        yield f"a command names no test: {text!r}"
    elif f"def {test[2]}(" not in path.read_text():
        yield f"there is no {test[2]} in {test[1]}"


def _check_variables(page: Page, known: Known) -> Iterator[str]:
    """Check that *Diagnose* begins with the variables that the commands of the page use.

    An alert links to the page itself, so its reader has seen no other page.
    """
    del known
    first = next((block for block in page.blocks if block.section == "Diagnose"), None)
    if first is None or not _is_export(first):
        yield "Diagnose does not begin with the variables"
        return
    exported = set(_ASSIGNED.findall(first.text))
    for block in page.blocks:
        if block.kind == "sh":
            used = set(_USED.findall(block.text)) - set(_ASSIGNED.findall(block.text))
            yield from (f"nothing sets ${name}" for name in sorted(used - exported))


def _check_queries(page: Page, known: Known) -> Iterator[str]:
    """Check that a query reads only series of the namespace of the alert.

    A Prometheus may scrape several releases.
    """
    del known
    for block in page.of("promql"):
        for name in sorted(_series(block.text)):
            for selector in re.findall(rf"(?<![\w:]){name}(?![\w:])(\{{[^}}]*\}})?", block.text):
                if NAMESPACE_SELECTOR not in selector:
                    yield f"{name} is read in all namespaces"
    if not _INTO_QUERIES.search(page.text):
        yield "nothing says that the queries need the namespace"


def _check_names(page: Page, known: Known) -> Iterator[str]:
    flat = " ".join(page.text.split())
    panels = [
        (title, board)
        for titles, board in _PANELS.findall(flat)
        for title in re.findall(r"\*([^*]+)\*", titles)
    ]
    if not panels:
        yield "no panel"
    yield from (f"no panel {t} of {b}" for t, b in panels if t not in known.panels[b])
    if not {title for title, _ in panels} & known.links.get(page.name, set()):
        yield "none of its panels links to it"
    metrics = {name for block in page.of("promql") for name in _series(block.text)}
    metrics |= set(re.findall(r"\bbusyapi_[a-z_]+", page.text))
    yield from (f"no metric {name}" for name in metrics if not _is_metric(name, known))
    settings = set(re.findall(r"\bBUSYAPI_[A-Z_]+", page.text))
    yield from (f"no setting {name}" for name in settings - known.settings)
    values = re.findall(r"[Vv]alue `([\w.]+)`|--set ([\w.]+)=", flat)
    yield from (f"no value {a or b}" for a, b in values if not _has(known.values, a or b))
    events = {name for a, b in _LOGGED.findall(page.text) for name in (a or b).split("|")}
    yield from (f"no log event {name}" for name in events - known.events)
    reasons = {name for row in _REASONS.findall(page.text) for name in re.findall(r"`(\w+)`", row)}
    yield from (f"no reason {name}" for name in reasons - REASONS)
    yield from (
        f"no message contains {text}" for text in _quoted_messages(page) if text not in known.source
    )


def _quoted_messages(page: Page) -> Iterator[str]:
    """Yield the starts of messages that tables quote."""
    for table in _MESSAGES.findall(page.text):
        for row in table.splitlines()[2:]:
            cell = row.split("|")[1].strip()
            for text in re.findall(r"`([^`]+)`", cell) or [cell]:
                yield text.partition("…")[0].strip()


def _series(query: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without) \([^)]*\)|offset \w+", "", query)
    return set(re.findall(r"\b[a-z_:][a-z_:0-9]*\b(?!\s*\()", bare)) - {"and", "or", "unless", "on"}


def _is_metric(name: str, known: Known) -> bool:
    return name in known.metrics or any(name.startswith(prefix) for prefix in FOREIGN_METRICS)


def _has(values: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _check_commands(page: Page, known: Known) -> Iterator[str]:
    """Check that every `busyapi archive …` parses, and that every curl has a timeout."""
    del known
    text = "\n".join(block.text for block in page.blocks if block.kind == "sh")
    if re.search(r"\bcurl (?!-s -m \d)", text):
        yield "a curl has no timeout"
    for command in _ARCHIVE.findall(text.replace("$P", "0").replace("SEQ", "1")):
        words = shlex.split(command)[1:]
        try:
            cli._parser(Settings.from_environment({})).parse_args(words)
        except (SystemExit, ConfigError):
            yield f"busyapi has no command {command}"


def _check_links(page: Page, known: Known) -> Iterator[str]:
    del known
    for link in find_broken_links(RUNBOOKS, page.text):
        yield f"a link is broken: {link}"
