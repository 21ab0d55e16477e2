"""The inhibition rules leave one page for each fault."""

import re
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.alertmanager import Alertmanager, amtool
from testkit.chart.promtool import list_alerts, list_cases, list_groups
from testkit.chart.rendering import ROOT, Json

EXAMPLE = ROOT / "k8s" / "observability" / "alertmanager.yaml"
RULES: list[Json] = yaml.safe_load(EXAMPLE.read_text())["inhibit_rules"]
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
BURN = ("AvailabilityBurn/1h", "AvailabilityBurn/6h")
LATE = ("ArchivingBurn/1h", "ArchivingBurn/6h", "ArchivingBurn/1d")

# Fault: the alerts that it fires at some time, and those that page.
FAULTS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "redis-lost": (
        ("RedisUnreachable", "FlusherNotReady", "FlusherStuck", "LatencyBurn/1h", *BURN, *LATE),
        {"RedisUnreachable"},
    ),
    "redis-weak": (
        ("DurabilityNotMet", "FlusherNotReady", "RedisUnreachable", "FlusherStuck", *BURN),
        {"DurabilityNotMet"},
    ),
    "flusher-halted": (
        ("FlusherHalted", "ArchiveDamaged", "FlusherNotReady", "FlusherStuck", *LATE),
        {"FlusherHalted"},
    ),
    "flusher-gone": (("TargetsMissing", "FlusherStuck", *LATE), {"TargetsMissing"}),
    "flusher-hangs-and-the-buffer-fills": (
        ("FlusherStuck", *LATE, "BufferFilling"),
        {"BufferFilling"},
    ),
    "buffer-full": (("FlusherStuck", "BufferFilling", "BufferFull", *LATE, *BURN), {"BufferFull"}),
    "disk-full": (
        ("ArchiveDiskFull", "ArchiveDiskFilling", "FlusherStuck", *LATE),
        {"ArchiveDiskFull"},
    ),
    "disk-failing": (("ArchiveWriteFailing", "FlusherStuck", *LATE), {"ArchiveWriteFailing"}),
    "segment-damaged": (("ArchiveDamaged", "LakeBehind"), {"ArchiveDamaged"}),
    "redis-slow": (("LatencyBurn/1h", "Overloaded", *BURN), {"AvailabilityBurn/1h"}),
    "ingress-broken": (("ProbeFailing", "TrafficGone"), {"ProbeFailing"}),
    "two-faults": (
        ("RedisUnreachable", "ArchiveDamaged", *BURN),
        {"RedisUnreachable", "ArchiveDamaged"},
    ),
}


def name_of(labels: Json) -> str:
    """Return the short name of an alert, with its long window."""
    short = labels["alertname"].removeprefix("Busyapi")
    return f"{short}/{labels['long']}" if "long" in labels else short


def fired() -> dict[str, Json]:
    """Return the labels of each alert as promtool's cases expect them, in partition 0."""
    labels: dict[str, Json] = {}
    for case in list_cases():
        for test in case.get("alert_rule_test", ()):
            for alert in test["exp_alerts"]:
                values = {"alertname": test["alertname"], **alert["exp_labels"]}
                values |= {"partition": "0"} if "partition" in values else {}
                labels.setdefault(name_of(values), values)
    return labels


FIRED = fired() | {
    "TargetsMissing": {
        "alertname": "BusyapiTargetsMissing",
        "severity": "critical",
        "namespace": "usages",
        "release": "busyapi",
        "partition": "0",
    }
}


@pytest.fixture(scope="module")
def notified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """Let all faults happen at once, each in a release of its own, and return what pages."""
    with Alertmanager(tmp_path_factory.mktemp("alertmanager"), EXAMPLE) as server:
        for fault, (names, _) in FAULTS.items():
            for name in names:
                server.add({**FIRED[name], "release": fault})
        pages: dict[str, set[str]] = {fault: set() for fault in FAULTS}
        for labels in server.notified():
            pages[labels["release"]].add(name_of(labels))
        yield pages


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_causes_one_page(fault: str, notified: dict[str, set[str]]) -> None:
    assert notified[fault] == FAULTS[fault][1]


def test_amtool_accepts_the_example_and_finds_an_error(tmp_path: Path) -> None:
    assert amtool("check-config", EXAMPLE).returncode == 0
    broken = tmp_path / "alertmanager.yaml"
    broken.write_text(EXAMPLE.read_text().replace("source_matchers", "source_match_all"))
    assert amtool("check-config", broken).returncode


def test_rules_name_only_alerts_that_exist() -> None:
    known = {rule["alert"] for rule in list_alerts(list_groups())}
    assert unknown_names(RULES, known) == set()
    assert unknown_names([{"source_matchers": ['alertname="BusyapiNew"']}], known) == {"BusyapiNew"}


def unknown_names(rules: Sequence[Json], known: set[str]) -> set[str]:
    """Return names in matchers that are not those of alerts."""
    texts = [
        m for rule in rules for side in rule for m in rule[side] if "alertname" in m and '"' in m
    ]
    names: set[str] = set()
    for text in texts:
        (_, _, pattern) = MATCHER.findall(text)[0]
        head, _, rest = pattern.partition("(")
        names |= {head + part for part in rest.rstrip(")").split("|")}
    return {n for n in names if not any(re.fullmatch(n, alert) for alert in known)}


def matches(matchers: Sequence[str], labels: Json) -> bool:
    """Return whether labels match all matchers, as Alertmanager compares them."""
    for name, operator, value in (MATCHER.fullmatch(text).groups() for text in matchers):  # type: ignore[union-attr]
        own = labels.get(name, "")
        same = re.fullmatch(value, own) is not None if "~" in operator else own == value
        if same == operator.startswith("!"):
            return False
    return True


def inhibitions(rules: Sequence[Json]) -> dict[str, set[str]]:
    """Return the alerts that each alert inhibits, in one release and partition."""
    graph: dict[str, set[str]] = {name: set() for name in FIRED}
    for rule in rules:
        for source, own in FIRED.items():
            for target, other in FIRED.items():
                equal = all(own.get(n, "") == other.get(n, "") for n in rule["equal"])
                if (
                    source != target
                    and equal
                    and matches(rule["source_matchers"], own)
                    and matches(rule["target_matchers"], other)
                ):
                    graph[source].add(target)
    return graph


def test_no_two_alerts_inhibit_each_other() -> None:
    """Alertmanager would then notify of neither."""
    tuple(TopologicalSorter(inhibitions(RULES)).static_order())
    reverse: dict[str, Any] = {
        "source_matchers": ['alertname="BusyapiArchivingBurn"'],
        "target_matchers": ['alertname="BusyapiRedisUnreachable"'],
        "equal": ["namespace", "release", "partition"],
    }
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(inhibitions([*RULES, reverse])).static_order())
