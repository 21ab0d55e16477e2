"""A fixture for logs that the benchmark removes, and a builder of runs."""

from collections.abc import Iterator

import pytest

from bench.runs import Run
from perf.lag import Lag
from perf.wrk import Result
from testkit.log_leaks import STARTED_LOGS


@pytest.fixture(autouse=True)
def _logs_go_with_their_folder() -> Iterator[None]:
    """Keep the search for leaks from missing logs that the benchmark removes, as it should."""
    before = set(STARTED_LOGS)
    yield
    STARTED_LOGS.intersection_update(before)


def make_run(
    rate: float,
    *,
    lag: float | None = None,
    p50: float = 1.0,
    cpu: float = 12.5,
    share: float | None = None,
) -> Run:
    result = Result(
        requests=int(rate),
        requests_per_second=rate,
        p50_ms=p50,
        p99_ms=2 * p50,
        not_2xx=0,
        socket_errors=0,
        timeouts=0,
    )
    lag_result = None if lag is None else Lag(lag, 0.0, 1234, 40, 0)
    # Only the first process is the server.
    processes = {"api-0": cpu, "proxy": 99.0}
    return Run(result, rate, dict.fromkeys(processes, 50 << 20), processes, lag_result, share)
