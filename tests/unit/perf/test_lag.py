import pytest

from perf.lag import Sample, Watch, ages, metric_value, summarise
from testkit.waiting import wait_until


def samples(*rows: tuple[float, int, int]) -> list[Sample]:
    return [Sample(at, issued, archived, 0.0) for at, issued, archived in rows]


def test_nothing_waiting_has_no_age() -> None:
    assert ages(samples((0, 5, 5), (1, 9, 9))) == [0, 0]


def test_the_oldest_is_dated_between_the_two_looks_that_saw_it_issued() -> None:
    # Seq 151 was issued 61/160 of a second after the first look.
    found = ages(samples((0, 90, 90), (1, 250, 90), (2, 400, 150)))
    assert found == pytest.approx([0, 1 - 1 / 160, 2 - 61 / 160])


def test_a_flusher_that_stands_still_gets_older_at_every_look() -> None:
    found = ages(samples((0, 0, 0), (1, 100, 0), (2, 200, 0), (3, 300, 0), (4, 300, 300)))
    assert found == pytest.approx([0, 0.99, 1.99, 2.99, 0])


def test_what_waited_at_the_first_look_counts_from_there() -> None:
    assert ages(samples((5, 100, 20), (6, 100, 20), (7, 100, 100))) == [0, 1, 0]


def test_looks_between_which_nothing_was_issued_are_passed_over() -> None:
    found = ages(samples((0, 10, 10), (1, 10, 10), (2, 20, 10), (3, 20, 10)))
    assert found == pytest.approx([0, 0, 0.9, 1.9])


def test_the_greatest_of_each_is_kept() -> None:
    seen = [
        Sample(0, 0, 0, 0.0),
        Sample(1, 500, 100, 1.25),
        Sample(2, 600, 500, 0.5),
        Sample(3, 600, 600, 0.0),
    ]
    lag = summarise(seen, missed=2)
    assert (lag.metric_seconds, lag.usages, lag.samples, lag.missed) == (1.25, 400, 4, 2)
    assert lag.counted_seconds == pytest.approx(1 - 1 / 100)
    assert lag.seconds == 1.25


def test_what_the_flusher_has_not_read_counts_although_its_metric_is_0() -> None:
    assert summarise(samples((0, 0, 0), (3, 900, 0))).seconds == pytest.approx(3, abs=0.01)


def test_no_look_at_all_is_no_lag() -> None:
    assert summarise([]).seconds == 0


def test_a_watch_looks_until_it_ends_and_counts_looks_without_an_answer() -> None:
    answers = iter([Sample(0, 1, 1, 0.0), None, Sample(1, 9, 2, 0.0)])

    def look() -> Sample:
        answer = next(answers, Sample(2, 9, 9, 0.0))
        if answer is None:
            raise OSError("away")
        return answer

    with Watch(look) as watch:
        wait_until(lambda: len(watch.samples) >= 3, "three looks")
    assert (watch.lag.usages, watch.lag.missed) == (7, 1)


def test_a_metric_is_found_by_its_whole_name() -> None:
    text = "# HELP a_b c\n# TYPE a_b gauge\na_b_total 3.0\na_b 1.5\n"
    assert metric_value(text, "a_b") == 1.5


def test_a_metric_is_found_whatever_its_labels() -> None:
    assert metric_value('a_b{partition="0"} 2.5\n', "a_b") == 2.5


def test_a_metric_that_is_not_there_is_an_error_and_no_0() -> None:
    with pytest.raises(ValueError, match="no metric"):
        metric_value("a_b_total 3.0\n", "a_b")
