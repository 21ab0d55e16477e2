"""One load test: the open loop and k6 scripts, one after the other, each reconciled."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtest import k6
from loadtest import machine as programs
from loadtest.openloop import GRACE_SECONDS
from loadtest.reconcile import ToolCounts, find_disagreements, reconcile
from loadtest.result import Result
from loadtest.target import Sample, State, Target, Unreachable
from perf.machine import describe_machine
from perf.sampler import Sampler

Say = Callable[[str], None]

START_SECONDS, START_SECONDS_A_REQUEST = 60.0, 1e-5
"""The time that the generator needs on a slow machine to make requests and to summarise."""
SAMPLE_ERRORS = (
    OSError,
    HTTPException,
    ValueError,
    KeyError,
    Unreachable,
    subprocess.TimeoutExpired,
)


@dataclass(frozen=True)
class Plan:
    """The plan of a load test."""

    rate: float
    seconds: float
    connections: int
    devices: int
    invalid: float
    even: bool
    scripts: tuple[str, ...]
    """The k6 scripts to run."""
    warm_up: float
    """Seconds at a tenth of the rate. The warm-up is reconciled too."""


def run(target: Target, plan: Plan, say: Say) -> Result:
    """Run a load test.

    Raises:
        Unreachable: The target did not answer, or a tool did not run.
    """
    # Look for k6 first: if it is missing after the open loop, those figures are lost.
    result = Result(about=_about(target, plan))
    say(f"reading the counts of {target.url} and its archive")
    state = target.wait_settled()
    if plan.warm_up:
        say(f"warm-up of {plan.warm_up:g} s at {plan.rate / 10:,.0f} a second")
        warm = _openloop(target, plan, plan.rate / 10, plan.warm_up)
        state = _reconcile(result, _make_counts("warm-up", warm), state, target, say)
    say(f"open loop: {plan.rate:,.0f} a second for {plan.seconds:g} s")
    before = programs.read_cpu_seconds()
    with _sample(target) as sampler:
        result.openloop = _openloop(target, plan, plan.rate, plan.seconds)
    elapsed = result.openloop["elapsed"]
    result.about["generator"] = result.openloop["engine"]
    result.cores = programs.cores_used(before, programs.read_cpu_seconds(), elapsed)
    result.cores["the generator"] = round(result.openloop["cpu"] / elapsed, 3)
    began = result.openloop.pop("started")
    # The generator needs seconds to plan a long load. They are not part of it.
    result.samples = [
        replace(sample, at=round(sample.at - began, 2))
        for sample in sampler.samples
        if sample.at > began - target.interval_seconds
    ]
    result.events = target.list_events(time.time() - time.monotonic() + began)
    result.about["samples that failed"] = sampler.missed
    state = _reconcile(result, _make_counts("open loop", result.openloop), state, target, say)
    for script in plan.scripts:
        say(f"k6 {script}")
        outcome = k6.run(script, target, {"DEVICES": str(plan.devices)}, ["--quiet"])
        result.k6[script] = outcome.metrics
        result.failures += [f"k6 {script}: {failure}" for failure in outcome.failures]
        state = _reconcile(result, outcome.counts, state, target, say)
    return result


def _sample(target: Target) -> Sampler[Sample]:
    return Sampler(lambda: target.sample(time.monotonic()), target.interval_seconds, *SAMPLE_ERRORS)


def _reconcile(
    result: Result, counts: ToolCounts, before: State, target: Target, say: Say
) -> State:
    say(f"{counts.tool}: {counts.created:,} answered with 201; waiting until all is archived")
    after = target.wait_settled()
    row = reconcile(counts, before, after)
    result.rows.append(row)
    result.failures += [
        f"{counts.tool}: {disagreement}" for disagreement in find_disagreements(counts, row)
    ]
    return after


def _openloop(target: Target, plan: Plan, rate: float, seconds: float) -> dict[str, Any]:
    """Run the generator in its own process: this one samples the target meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        options: dict[str, Any] = {
            "connect": target.connect,
            "host": target.host,
            "authorization": target.authorization,
            "rate": rate,
            "seconds": seconds,
            "connections": plan.connections,
            "devices": plan.devices,
            "invalid": plan.invalid,
            "json": path,
        }
        words = [f"--{name}={value}" for name, value in options.items() if value != ""]
        command = [sys.executable, "-m", "loadtest.openloop", *words]
        limit = seconds + GRACE_SECONDS + START_SECONDS + START_SECONDS_A_REQUEST * rate * seconds
        # If there are figures, they say more than the exit code.
        process = subprocess.run(
            [*command, *(["--even"] if plan.even else [])],
            check=False,
            timeout=limit,
            cwd=Path(__file__).parents[1],
        )
        if not path.exists():
            raise Unreachable(f"the generator ended with {process.returncode}")
        summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def _make_counts(tool: str, figures: dict[str, Any]) -> ToolCounts:
    return ToolCounts(
        tool=tool,
        sent=figures["planned"] - figures["not_sent"],
        created=figures["created"],
        refused=figures["refused"],
        unknown=figures["unknown"],
        not_sent=figures["not_sent"],
        unexpected=figures["unexpected"],
        duplicates=figures["duplicates"],
    )


def _about(target: Target, plan: Plan) -> dict[str, Any]:
    here = describe_machine(Path(tempfile.gettempdir()))
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m loadtest", *sys.argv[1:]]),
        **target.about(),
        "connections": plan.connections,
        "arrivals": "even" if plan.even else "Poisson",
        "bodies": f"{plan.devices:,} patients, {plan.invalid:.1%} to be refused",
        "k6": k6.version() if plan.scripts else "not run",
        "machine": f"{here.cores} cores of {here.cpu}, {here.memory_gib} GiB, {here.kernel}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
