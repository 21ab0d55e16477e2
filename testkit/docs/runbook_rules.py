"""What a runbook must be and may name. Each rule gives complaints, none when all is well."""

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
from busyapi.errors import ConfigError
from busyapi.events import EVENTS
from busyapi.metrics import ApiMetrics, FlusherMetrics
from busyapi.settings import Settings
from testkit.docs.links import broken_links
from testkit.docs.runbooks import RECOVERY, RUNBOOKS, Page

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
MODULES = sorted((ROOT / "service" / "busyapi").rglob("*.py"))
HEADINGS = ["Meaning", "Impact", "Diagnose", "Fix", "Do not", RECOVERY, "Escalate"]
BOARDS = "Overview|Data path|Autoscaling and resources"
FOREIGN = {"up", "container_cpu_cfs_throttled_periods_total", "kube_horizontalpodautoscaler_"}
"""Beginnings of what cAdvisor, kube-state-metrics and Prometheus itself give."""
REASONS = {name for name in vars(errors) if name[0].isupper()} | {
    name
    for name, each in vars(builtins).items()
    if isinstance(each, type) and issubclass(each, OSError)
}
_PANELS = re.compile(rf"anels? ((?:\*[^*]+\*(?:, | and )?)+) of \*({BOARDS})\*")
_LOGGED = re.compile(r"kubectl .*?logs .*?\| grep (?:-E )?'?([a-z_|]+)'?|log event\s+`([a-z_]+)`")
_ARCHIVE = re.compile(r"-- (busyapi archive [^|>&\n]+)")
_REASONS = re.compile(r"^ *\| *reason .*\n(?: *\|.*\n)+", re.MULTILINE)
_SAYS = re.compile(r"^ *\| (?:message contains|why) .*\n(?: *\|.*\n)+", re.MULTILINE)
_DECIDES = re.compile(r"(\S+\.py)::(\w+)")


@dataclass(frozen=True)
class Known:
    """All that may be named."""

    alerts: dict[str, set[str]]
    """With their severities."""
    panels: dict[str, set[str]]
    links: dict[str, set[str]]
    """The panels that link to an alert's page."""
    metrics: set[str]
    """Those of recording rules too."""
    settings: set[str]
    values: dict[str, Any]
    events: set[str]
    source: str
    """All of the service's."""


def known() -> Known:
    """Collect it from where it is made."""
    return Known(
        alerts=_alerts(),
        panels=dict(_boards()),
        links=linked(),
        metrics={*_metrics(), *(each["record"] for each in _rules() if "record" in each)},
        settings={str(each.metadata["name"]) for each in fields(Settings)},
        values=yaml.safe_load((CHART / "values.yaml").read_text()),
        events={each.name for each in EVENTS},
        source="".join(each.read_text() for each in MODULES),
    )


def _alerts() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in _rules():
        if "alert" in rule:
            found.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    return found


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]:
        yield from group["rules"]


def boards() -> Iterator[dict[str, Any]]:
    """Give each dashboard of the chart."""
    for each in sorted((CHART / "dashboards").glob("*.json")):
        yield json.loads(each.read_text())


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give its panels, those within rows too."""
    for each in board["panels"]:
        yield from (each, *each.get("panels", []))


def _boards() -> Iterator[tuple[str, set[str]]]:
    for board in boards():
        title = board["title"].rpartition(" / ")[2]
        yield title, {each["title"] for each in panels(board) if each["type"] != "row"}


def linked() -> dict[str, set[str]]:
    """Give the titles of the panels that link to each page."""
    found: dict[str, set[str]] = {}
    for panel in (each for board in boards() for each in panels(board)):
        for link in panel.get("links", []):
            if link["title"].startswith("Runbook"):
                page = re.sub(r".*[/}]", "", link["url"]).removesuffix(".md")
                found.setdefault(page, set()).add(panel["title"])
    return found


def _metrics() -> Iterator[str]:
    for registry in (ApiMetrics("fsync").registry, FlusherMetrics("fsync", 0).registry):
        for family in registry.collect():
            yield from (family.name + end for end in ("", "_total", "_bucket", "_sum", "_count"))


def complaints(page: Page, known: Known) -> list[str]:
    """Hold one page to everything."""
    rules = (_shape, _named, _commands, _decisions, _links)
    return [each for rule in rules for each in rule(page, known)]


def _shape(page: Page, known: Known) -> Iterator[str]:
    if page.name not in known.alerts:
        yield f"there is no alert {page.name}"
    if not page.text.startswith(f"# {page.name}\n\n"):
        yield "its title is not the alert's name"
    if page.headings != HEADINGS:
        yield f"its headings are {page.headings}"
    if not page.of("promql"):
        yield "no query"
    for section in ("Diagnose", RECOVERY):
        if not any(each.kind == "sh" and each.section == section for each in page.blocks):
            yield f"no command under {section}"
    for section in {each.section for each in page.blocks if each.marks} - {"Fix"}:
        yield f"a command under {section} changes something"
    for mark in {each.marks[0] for each in page.blocks if each.marks} - {"changes", "decides"}:
        yield f"a block is marked {mark}"


def _named(page: Page, known: Known) -> Iterator[str]:
    flat = " ".join(page.text.split())
    shown = [
        (title, board)
        for titles, board in _PANELS.findall(flat)
        for title in re.findall(r"\*([^*]+)\*", titles)
    ]
    if not shown:
        yield "no panel"
    yield from (f"no panel {t} of {b}" for t, b in shown if t not in known.panels[b])
    if not {title for title, _ in shown} & known.links.get(page.name, set()):
        yield "none of its panels links to it"
    metrics = {each for block in page.of("promql") for each in _series(block.text)}
    metrics |= set(re.findall(r"\bbusyapi_[a-z_]+", page.text))
    yield from (f"no metric {each}" for each in metrics if not _is_metric(each, known))
    settings = set(re.findall(r"\bBUSYAPI_[A-Z_]+", page.text))
    yield from (f"no setting {each}" for each in settings - known.settings)
    values = re.findall(r"[Vv]alue `([\w.]+)`|--set ([\w.]+)=", flat)
    yield from (f"no value {a or b}" for a, b in values if not _has(known.values, a or b))
    events = {e for a, b in _LOGGED.findall(page.text) for e in (a or b).split("|")}
    yield from (f"no log event {each}" for each in events - known.events)
    reasons = {e for row in _REASONS.findall(page.text) for e in re.findall(r"`(\w+)`", row)}
    yield from (f"no reason {each}" for each in reasons - REASONS)
    yield from (f"nothing says {each}" for each in _said(page) if each not in known.source)


def _said(page: Page) -> Iterator[str]:
    """Give the beginnings of messages that a table goes by."""
    for table in _SAYS.findall(page.text):
        for row in table.splitlines()[2:]:
            said = row.split("|")[1].strip()
            for each in re.findall(r"`([^`]+)`", said) or [said]:
                yield each.partition("…")[0].strip()


def _series(query: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without) \([^)]*\)|offset \w+", "", query)
    return set(re.findall(r"\b[a-z_:][a-z_:0-9]*\b(?!\s*\()", bare)) - {"and", "or", "unless", "on"}


def _is_metric(name: str, known: Known) -> bool:
    return name in known.metrics or any(name.startswith(each) for each in FOREIGN)


def _has(values: Any, path: str) -> bool:
    for each in path.split("."):
        if not isinstance(values, dict) or each not in values:
            return False
        values = values[each]
    return True


def _commands(page: Page, known: Known) -> Iterator[str]:
    """Every `busyapi archive …` must parse, those that a person fills in too; no curl may hang."""
    del known
    text = "\n".join(each.text for each in page.blocks if each.kind == "sh")
    if re.search(r"\bcurl (?!-s -m \d)", text):
        yield "a curl waits for ever"
    for command in _ARCHIVE.findall(text.replace("$P", "0").replace("SEQ", "1")):
        words = shlex.split(command)[1:]
        try:
            cli._parser(Settings.from_environment({})).parse_args(words)
        except (SystemExit, ConfigError):
            yield f"busyapi does not know {command}"


def _decisions(page: Page, known: Known) -> Iterator[str]:
    """What cannot be undone names a test that does it."""
    del known
    for block in page.blocks:
        if block.marks[:1] != ["decides"]:
            continue
        named = _DECIDES.fullmatch(" ".join(block.marks[1:]))
        path = ROOT / named[1] if named else None
        if named is None or path is None or not path.exists():
            yield f"what decides names no test: {block.marks}"
        elif f"def {named[2]}(" not in path.read_text():
            yield f"there is no {named[2]} in {named[1]}"


def _links(page: Page, known: Known) -> Iterator[str]:
    del known
    for link in broken_links(RUNBOOKS, page.text):
        yield f"a link leads nowhere: {link}"
