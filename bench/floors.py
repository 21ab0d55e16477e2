"""Thresholds for a quiet machine with two cores.

The report lists whether they are met. They never decide the exit code: a busy machine is no defect.
"""

from dataclasses import dataclass

POSTS_PER_SECOND = 30_000
OF_NOOP = 0.95
BATCHED_PER_SECOND = 200_000
LAG_SECONDS = 2.0

# The goals were set on a faster machine. Ratios depend less on the machine than rates.
WHOLE_MACHINE_PER_SECOND = 100_000
BATCHED_GOAL_PER_SECOND = 800_000
FLUSHED_PER_CORE_SECOND = 1_000_000
OF_AIOHTTP, OF_WEBDIS, OF_NGINX = 3.5, 1.5, 0.5
PLAIN_OF_AIOHTTP = 1.2


@dataclass(frozen=True)
class Floor:
    """One figure and its threshold."""

    what: str
    threshold: str
    value: str
    met: bool


def posts(rate: float) -> Floor:
    """Judge single posts a second, two durable API processes."""
    return _rate("durable single posts, 2 API processes", rate, POSTS_PER_SECOND)


def batches(rate: float) -> Floor:
    """Judge usages a second in batches."""
    return _rate("durable usages in batches, 2 API processes", rate, BATCHED_PER_SECOND)


def of_noop(ratio: float) -> Floor:
    """Judge one durable API process in relation to one process of Sanic's no-op."""
    what = "durable single posts, 1 API process, of a Sanic no-op process"
    return Floor(what, f"≥ {OF_NOOP}", f"{ratio:.2f}", ratio >= OF_NOOP)


def whole_machine(rate: float) -> Floor:
    """Judge the rate of one API process on two cores."""
    return _rate("goal: durable single posts, 1 API process", rate, WHOLE_MACHINE_PER_SECOND)


def batches_goal(rate: float) -> Floor:
    """Judge usages a second in batches in relation to the goal."""
    return _rate("goal: durable usages in batches", rate, BATCHED_GOAL_PER_SECOND)


def flusher(rate: float) -> Floor:
    """Judge the usages that a core of flusher archives in a second."""
    return _rate("goal: usages archived by a core of flusher", rate, FLUSHED_PER_CORE_SECOND)


def reference(row: str, other: str, ratio: float, threshold: float) -> Floor:
    """Judge one row in relation to another row of the same run."""
    return Floor(f"goal: {row} / {other}", f"≥ {threshold}", f"{ratio:.2f}", ratio >= threshold)


def lag(seconds: float) -> Floor:
    """Judge the greatest lag of the flusher."""
    return Floor(
        "greatest lag of the flusher",
        f"≤ {LAG_SECONDS:g} s",
        f"{seconds:.1f} s",
        seconds <= LAG_SECONDS,
    )


def _rate(what: str, rate: float, threshold: int) -> Floor:
    return Floor(what, f"≥ {threshold:,}/s", f"{rate:,.0f}/s", rate >= threshold)
