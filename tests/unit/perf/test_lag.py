import pytest

from perf.lag import Sample, ages, metric_value, summarise


def make_samples(*rows: tuple[float, int, int]) -> list[Sample]:
    return [Sample(at, issued, archived, 0.0) for at, issued, archived in rows]


def test_nothing_waiting_has_no_age() -> None:
    assert ages(make_samples((0, 5, 5), (1, 9, 9))) == [0, 0]


def test_the_oldest_is_dated_between_the_samples_around_its_issue() -> None:
    # Seq 151 was issued 61/160 of a second after the first sample.
    result = ages(make_samples((0, 90, 90), (1, 250, 90), (2, 400, 150)))
    assert result == pytest.approx([0, 1 - 1 / 160, 2 - 61 / 160])


def test_a_stalled_flusher_is_older_at_every_sample() -> None:
    result = ages(make_samples((0, 0, 0), (1, 100, 0), (2, 200, 0), (3, 300, 0), (4, 300, 300)))
    assert result == pytest.approx([0, 0.99, 1.99, 2.99, 0])


def test_usages_that_wait_at_the_first_sample_count_from_there() -> None:
    assert ages(make_samples((5, 100, 20), (6, 100, 20), (7, 100, 100))) == [0, 1, 0]


def test_samples_without_new_usages_are_skipped() -> None:
    result = ages(make_samples((0, 10, 10), (1, 10, 10), (2, 20, 10), (3, 20, 10)))
    assert result == pytest.approx([0, 0, 0.9, 1.9])


def test_the_maximum_of_each_value_is_kept() -> None:
    rows = [
        Sample(0, 0, 0, 0.0),
        Sample(1, 500, 100, 1.25),
        Sample(2, 600, 500, 0.5),
        Sample(3, 600, 600, 0.0),
    ]
    lag = summarise(rows, missed=2)
    assert (lag.metric_seconds, lag.usages, lag.samples, lag.missed) == (1.25, 400, 4, 2)
    assert lag.counted_seconds == pytest.approx(1 - 1 / 100)
    assert lag.seconds == 1.25


def test_usages_that_the_flusher_has_not_read_count_although_its_metric_is_0() -> None:
    assert summarise(make_samples((0, 0, 0), (3, 900, 0))).seconds == pytest.approx(3, abs=0.01)


def test_without_a_sample_there_is_no_lag() -> None:
    assert summarise([]).seconds == 0


def test_a_metric_is_found_by_its_whole_name() -> None:
    text = "# HELP a_b c\n# TYPE a_b gauge\na_b_total 3.0\na_b 1.5\n"
    assert metric_value(text, "a_b") == 1.5


def test_a_metric_is_found_whatever_its_labels() -> None:
    assert metric_value('a_b{partition="0"} 2.5\n', "a_b") == 2.5


def test_a_missing_metric_is_an_error_and_not_0() -> None:
    with pytest.raises(ValueError, match="no metric"):
        metric_value("a_b_total 3.0\n", "a_b")
