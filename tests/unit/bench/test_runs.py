from collections import Counter
from pathlib import Path

import pytest

from bench.runs import Driver, Tally, fast_path_share, median_ratio, median_run
from perf.guarded_stack import GuardedStack
from perf.load import DEPLOYED, SINGLE
from perf.reconcile import find_disagreements
from perf.stack import BusyapiStack, Totals
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


def make_totals(answers: int, fast_path: int | None) -> Totals:
    return Totals(Counter({201: answers}), fast_path, stored=0, counted=0, archived=0)


def test_the_share_of_the_fast_path_is_that_of_one_run() -> None:
    assert fast_path_share(make_totals(100, 0), make_totals(200, 75)) == 0.75


@pytest.mark.parametrize("end", [make_totals(200, None), make_totals(100, 50)])
def test_without_a_count_or_an_answer_there_is_no_share(end: Totals) -> None:
    assert fast_path_share(make_totals(100, 50), end) is None


def test_posts_as_deployed_take_the_fast_path_and_are_all_archived(tmp_path: Path) -> None:
    with GuardedStack(tmp_path, kind="token") as contender:
        driver = Driver(contender, DEPLOYED, tmp_path, connections=4, core=None)
        contender.probe(driver.load)
        share = driver.measure(1).fast_path_share
        assert share is not None
        assert share > 0.99
        counts = contender.finish(
            driver.load,
            seen=driver.tally.answered + 1,
            cut_off=4 * driver.tally.runs,
            errors=driver.tally.errors,
        )
        assert not find_disagreements(counts)


def test_without_the_fast_path_its_share_is_zero(tmp_path: Path) -> None:
    with BusyapiStack(tmp_path, apis=1, settings={"BUSYAPI_FAST_PATH": "off"}) as contender:
        driver = Driver(contender, SINGLE, tmp_path, connections=4, core=None)
        assert driver.measure(1).fast_path_share == 0
