"""When a credential has ended, and what would be a defect."""

import pytest

from e2e.measure import Sample, ScenarioFailed
from e2e.scenarios.revocation import MAX_SECONDS, find_last_accepted, measure_end
from testkit.history import Outcome

SINCE = 100.0


def accepted(at: float) -> Sample:
    return Sample(at - 0.1, at, Outcome.OK, 201)


def refused(at: float, status: int = 401) -> Sample:
    return Sample(at - 0.1, at, Outcome.REFUSED, status)


BEFORE = [accepted(98), accepted(99)]


def test_the_last_pod_counts() -> None:
    # Pods read the change one after the other.
    samples = [*BEFORE, refused(103), accepted(104), refused(105), refused(106, 429)]
    assert find_last_accepted(samples) == 104
    assert measure_end(samples, SINCE) == 4


def test_an_immediate_end_takes_no_time() -> None:
    assert measure_end([*BEFORE, refused(101)], SINCE) == 0


@pytest.mark.parametrize(
    "samples",
    [
        [*BEFORE, accepted(101)],
        [*BEFORE, accepted(SINCE + MAX_SECONDS + 1), refused(SINCE + MAX_SECONDS + 2)],
        [refused(98), *BEFORE, refused(101)],
        [*BEFORE, refused(101), refused(102, 503)],
        [*BEFORE, refused(101), Sample(101, 102, Outcome.UNKNOWN, 0)],
    ],
    ids=["never refused", "too late", "refused before", "another status", "no answer"],
)
def test_everything_else_is_a_defect(samples: list[Sample]) -> None:
    with pytest.raises(ScenarioFailed):
        measure_end(samples, SINCE)
