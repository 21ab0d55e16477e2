from bench.runs import Tally, median_ratio, median_run
from perf.wrk import Result
from tests.unit.bench.conftest import make_run


def test_the_median_run_is_one_run_with_all_its_figures() -> None:
    runs = [make_run(300, p50=3), make_run(100, p50=1), make_run(200, p50=2)]
    assert median_run(runs) is runs[2]


def test_of_two_runs_the_slower_is_the_median() -> None:
    assert median_run([make_run(300), make_run(100)]).usages_per_second == 100


def test_the_ratio_compares_runs_of_the_same_round() -> None:
    # The machine was slow in the second round, for both.
    own, other = (
        [make_run(90), make_run(45), make_run(99)],
        [make_run(100), make_run(50), make_run(100)],
    )
    assert median_ratio(own, other) == 0.9


def test_responses_other_than_201_are_errors() -> None:
    tally = Tally()
    for _ in range(2):
        tally.add(Result(100, 50.0, 1, 2, not_2xx=3, socket_errors=4, timeouts=5))
    assert (tally.answered, tally.errors, tally.runs) == (194, 14, 2)
