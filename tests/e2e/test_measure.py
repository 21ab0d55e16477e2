"""The checks of a run on a cluster fail for each defect."""

import pytest

from e2e.measure import (
    Figures,
    Sample,
    ScenarioFailed,
    find_longest_silence,
    quantile,
    require_no_skipped_ids,
    require_none_failed,
    require_nothing_lost,
    require_short_outage,
    summarise,
)
from testkit.archive_reader import Archive, Line, Span
from testkit.checker import check_history
from testkit.history import History, Outcome, Request


def answered(at: float) -> Sample:
    return Sample(at - 0.1, at, Outcome.OK, 201)


STEADY = [answered(at / 10) for at in range(1, 101)]


def test_a_steady_load_passes_every_check() -> None:
    summary = summarise(STEADY, 0.0, 10.0)
    assert (summary.sent, summary.answered, summary.failed, summary.statuses) == (
        100,
        100,
        0,
        {201: 100},
    )
    assert summary.silence == pytest.approx(0.1)
    assert summary.p99 == pytest.approx(0.1)
    require_none_failed(summary)
    require_short_outage(summary, 1)


@pytest.mark.parametrize(
    "sample",
    [
        Sample(5.0, 5.1, Outcome.REFUSED, 503),
        Sample(5.0, 5.1, Outcome.UNKNOWN, 502),
        Sample(5.0, 5.1, Outcome.UNKNOWN, 0),
        Sample(5.0, 5.1, Outcome.REFUSED, 0),
    ],
)
def test_one_request_that_failed_in_any_way_fails_the_check(sample: Sample) -> None:
    summary = summarise([*STEADY, sample], 0.0, 10.0)
    assert summary.failed == 1
    with pytest.raises(ScenarioFailed, match="1 of 101 requests failed"):
        require_none_failed(summary)


def test_a_run_without_requests_fails_the_check() -> None:
    with pytest.raises(ScenarioFailed):
        require_none_failed(Figures())
    with pytest.raises(ScenarioFailed):
        require_short_outage(Figures(), 60)


@pytest.mark.parametrize(
    ("answers", "longest"),
    [([], 10.0), ([9.0], 9.0), ([1.0], 9.0), ([1.0, 8.0, 2.0], 6.0), ([1.0, 5.0, 15.0], 5.0)],
)
def test_silence_counts_the_time_before_the_first_answer_and_after_the_last(
    answers: list[float], longest: float
) -> None:
    assert find_longest_silence(answers, 0.0, 10.0) == longest


def test_an_outage_that_is_too_long_fails_the_check() -> None:
    quiet = [sample for sample in STEADY if not 3 < sample.answered < 6]
    summary = summarise(quiet, 0.0, 10.0)
    assert summary.silence == pytest.approx(3.0, abs=0.2)
    require_short_outage(summary, 4)
    with pytest.raises(ScenarioFailed, match="no answer for"):
        require_short_outage(summary, 2)


def test_only_a_clear_refusal_counts_as_refused() -> None:
    samples = [Sample(0, 1, Outcome.REFUSED, 503), Sample(0, 1, Outcome.UNKNOWN, 503)]
    summary = summarise(samples, 0.0, 1.0)
    assert (summary.failed, summary.refused) == (2, 1)


def test_quantile_of_none_many_and_one() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([float(number) for number in range(100, 0, -1)], 0.99) == 100
    assert quantile([1.0], 0.99) == 1


def test_a_lost_usage_fails_the_check() -> None:
    history = History()
    for number in (1, 2):
        name = bytes([number])
        history.add(Request(digests=(name,), outcome=Outcome.OK, ids=(number,), status=201))
    archive = Archive()
    archive.partition(0).lines = [Line(1, b"\x01", "a"), Line(2, b"\x02", "a")]
    require_nothing_lost(check_history(history, archive))
    archive.partition(0).lines.pop()
    with pytest.raises(ScenarioFailed, match="missing"):
        require_nothing_lost(check_history(history, archive))


def test_skipped_ids_are_found() -> None:
    archive = Archive()
    archive.partition(0).lines = [Line(1, b"\x01", "a")]
    require_no_skipped_ids(check_history(History(), archive))
    archive.partition(0).gaps.append(Span(2, 100, "a"))
    with pytest.raises(ScenarioFailed, match="99 ids"):
        require_no_skipped_ids(check_history(History(), archive))
