from bench.runs import Tally, median_ratio, median_run
from perf.wrk import Result
from tests.unit.bench.conftest import run


def test_the_median_run_is_one_run_with_all_its_figures() -> None:
    runs = [run(300, p50=3), run(100, p50=1), run(200, p50=2)]
    assert median_run(runs) is runs[2]


def test_of_two_runs_the_slower_is_the_median() -> None:
    assert median_run([run(300), run(100)]).usages_per_second == 100


def test_the_ratio_is_of_runs_side_by_side() -> None:
    # The machine was slow in the second round, for both.
    ours, theirs = [run(90), run(45), run(99)], [run(100), run(50), run(100)]
    assert median_ratio(ours, theirs) == 0.9


def test_answers_that_are_no_201_are_errors_and_not_answers() -> None:
    tally = Tally()
    for _ in range(2):
        tally.add(Result(100, 50.0, 1, 2, not_2xx=3, socket_errors=4, timeouts=5))
    assert (tally.answered, tally.errors, tally.runs) == (194, 14, 2)
