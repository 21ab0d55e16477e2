"""Runs and counts with figures of our own."""

from typing import Any

from bench.lag import Lag
from bench.reconcile import Counts
from bench.runs import Run
from bench.wrk import Result


def run(rate: float, *, lag: float | None = None, p50: float = 1.0) -> Run:
    result = Result(
        requests=int(rate),
        requests_per_second=rate,
        p50_ms=p50,
        p99_ms=2 * p50,
        not_2xx=0,
        socket_errors=0,
        timeouts=0,
    )
    watched = None if lag is None else Lag(lag, 0.0, 1234, 40, 0)
    return Run(result, rate, {"api-0": 50 << 20}, {"api-0": 12.5}, watched)


def counts(**other: Any) -> Counts:
    """Return counts that agree, but for `other`."""
    agreed: dict[str, Any] = {
        "seen": 990,
        "cut_off": 10,
        "sent": 1000,
        "stored": 1000,
        "counted": 1000,
        "archived": 1000,
        "lines": 1000,
        "fault": "",
        "statuses": {201: 990, 499: 10},
        "errors": 0,
    }
    return Counts(**(agreed | other))
