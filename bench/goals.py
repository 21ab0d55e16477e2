"""The goals for a quiet machine with two cores.

The report lists whether they are met. They never decide the exit code: a busy machine is no defect.
"""

from dataclasses import dataclass

MIN_POSTS_PER_SECOND = 30_000
MIN_RATIO_TO_NOOP = 0.95
MIN_BATCHED_PER_SECOND = 200_000
MAX_LAG_SECONDS = 2.0

# These were set on a faster machine.
MIN_WHOLE_MACHINE_PER_SECOND = 100_000
MIN_BATCHED_PER_SECOND_ON_FAST_MACHINE = 800_000
MIN_FLUSHED_PER_CORE_SECOND = 1_000_000

# Ratios depend less on the machine than rates.
MIN_RATIO_TO_AIOHTTP, MIN_RATIO_TO_WEBDIS, MIN_PLAIN_RATIO_TO_AIOHTTP = 4.0, 1.6, 1.3
MAX_CPU_RATIO_TO_NGINX, MAX_CPU_RATIO_BEHIND_PROXY = 1.5, 1.1
MIN_RATIO_WITH_CREDENTIAL = 0.85
MIN_RATIO_WITH_HEADERS, MIN_RATIO_AS_DEPLOYED = 0.92, 0.85
MIN_FAST_PATH_SHARE = 0.99
MIN_RATIO_REPLICATED = 0.6
"""Of three servers in the tier `replicated`, on the two cores where one server in `fsync` runs."""


@dataclass(frozen=True)
class Goal:
    """A figure and its threshold, which is a minimum or, for the lag, a maximum."""

    what: str
    threshold: str
    value: str
    met: bool


def judge_posts(rate: float) -> Goal:
    """Judge single posts a second, two durable API processes."""
    return _rate("durable single posts, 2 API processes", rate, MIN_POSTS_PER_SECOND)


def judge_batches(rate: float) -> Goal:
    """Judge usages a second in batches."""
    return _rate("durable usages in batches, 2 API processes", rate, MIN_BATCHED_PER_SECOND)


def judge_ratio_to_noop(ratio: float) -> Goal:
    """Judge one durable API process in relation to one process of Sanic's no-op."""
    what = "durable single posts, 1 API process, of a Sanic no-op process"
    return Goal(what, f"≥ {MIN_RATIO_TO_NOOP}", f"{ratio:.2f}", ratio >= MIN_RATIO_TO_NOOP)


def judge_whole_machine(rate: float) -> Goal:
    """Judge the rate of one API process on two cores."""
    return _rate(
        "on a faster machine: durable single posts, 1 API process",
        rate,
        MIN_WHOLE_MACHINE_PER_SECOND,
    )


def judge_batches_on_fast_machine(rate: float) -> Goal:
    """Judge usages a second in batches by the goal for a faster machine."""
    return _rate(
        "on a faster machine: durable usages in batches",
        rate,
        MIN_BATCHED_PER_SECOND_ON_FAST_MACHINE,
    )


def judge_flusher(rate: float) -> Goal:
    """Judge the usages that a core of flusher archives in a second."""
    return _rate(
        "on a faster machine: usages archived by a core of flusher",
        rate,
        MIN_FLUSHED_PER_CORE_SECOND,
    )


def judge_ratio(row: str, other: str, ratio: float, threshold: float) -> Goal:
    """Judge the rate of one row in relation to another row of the same run."""
    return Goal(f"{row} / {other}", f"≥ {threshold}", f"{ratio:.2f}", ratio >= threshold)


def judge_cpu(row: str, other: str, ratio: float, threshold: float) -> Goal:
    """Judge the server's CPU for a usage in relation to another row of the same run."""
    what = f"server's CPU for a usage, {row} / {other}"
    return Goal(what, f"≤ {threshold}", f"{ratio:.2f}", ratio <= threshold)


def judge_fast_path(row: str, share: float) -> Goal:
    """Judge the share of posts that took the fast path."""
    return Goal(
        f"share on the fast path, {row}",
        f"≥ {MIN_FAST_PATH_SHARE}",
        f"{share:.4f}",
        share >= MIN_FAST_PATH_SHARE,
    )


def judge_lag(seconds: float) -> Goal:
    """Judge the greatest lag of the flusher."""
    return Goal(
        "greatest lag of the flusher",
        f"≤ {MAX_LAG_SECONDS:g} s",
        f"{seconds:.1f} s",
        seconds <= MAX_LAG_SECONDS,
    )


def _rate(what: str, rate: float, threshold: int) -> Goal:
    return Goal(what, f"≥ {threshold:,}/s", f"{rate:,.0f}/s", rate >= threshold)
