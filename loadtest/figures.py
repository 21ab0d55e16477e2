"""The figures of an open loop: of the whole run, and for each second of its plan."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.generator import NOT_SENT, OK, REFUSED, UNKNOWN, Generator
from loadtest.native import Native

MS = 1e3
SKIP_SECONDS = 1.0
"""The first second is counted, but left out of the percentiles of the run: caches are cold."""


@dataclass(frozen=True)
class Quantiles:
    """Latencies of 201s from the planned time in milliseconds. All are 0 without a 201."""

    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0


def compute_quantiles(latencies: Sequence[float]) -> Quantiles:
    """Return the quantiles of latencies in seconds."""
    if not latencies:
        return Quantiles()
    ordered = sorted(latencies)
    last = len(ordered) - 1

    def at(q: float) -> float:
        return round(ordered[min(last, int(len(ordered) * q))] * MS, 3)

    return Quantiles(at(0.5), at(0.9), at(0.95), at(0.99), at(0.999), at(1))


def summarise(run: Generator | Native, valid: Sequence[bool]) -> dict[str, Any]:
    """Summarise a run. `valid` says for each request in turn whether a 201 is expected."""
    outcomes = Counter(run.outcomes)
    expected = [valid[number % len(valid)] for number in range(len(run.due))]
    unexpected = sum(
        outcome in {OK, REFUSED} and (outcome == OK) != good
        for outcome, good in zip(run.outcomes, expected, strict=True)
    )
    good = [
        (latency, due)
        for latency, due, outcome in zip(run.latencies, run.due, run.outcomes, strict=True)
        if outcome == OK
    ]
    # A run that is not longer than the skipped time is not skipped.
    warm = [latency for latency, due in good if due >= SKIP_SECONDS] or [
        latency for latency, _ in good
    ]
    return {
        "planned": len(run.due),
        "created": outcomes[OK],
        "refused": outcomes[REFUSED],
        "unknown": outcomes[UNKNOWN],
        "not_sent": outcomes[NOT_SENT],
        "unexpected": unexpected,
        "duplicates": len(run.ids) - len(set(run.ids)),
        "statuses": dict(sorted(Counter(run.statuses).items())),
        "started": run.started,
        "elapsed": round(run.elapsed, 3),
        "longest_queue": run.longest_queue,
        "reopened": run.reopened,
        "latency": asdict(compute_quantiles(warm)),
        "series": summarise_seconds(run),
    }


def summarise_seconds(run: Generator | Native) -> list[dict[str, float]]:
    """Return a row for each second: the outcomes of its planned requests, and its answers."""
    answered = Counter(
        int(due + latency)
        for due, latency, outcome in zip(run.due, run.latencies, run.outcomes, strict=True)
        if outcome == OK
    )
    rows = []
    start = 0
    for second in range(max([int(run.due[-1]), *answered]) + 1):
        end = start
        while end < len(run.due) and run.due[end] < second + 1:
            end += 1
        outcomes = run.outcomes[start:end]
        latency = [
            entry for entry, o in zip(run.latencies[start:end], outcomes, strict=True) if o == OK
        ]
        rows.append(
            {
                "at": second,
                "planned": end - start,
                "answered": answered[second],
                "created": len(latency),
                "failed": sum(outcome in {NOT_SENT, UNKNOWN} for outcome in outcomes),
                "refused": outcomes.count(REFUSED),
                **asdict(compute_quantiles(latency)),
            }
        )
        start = end
    return rows
