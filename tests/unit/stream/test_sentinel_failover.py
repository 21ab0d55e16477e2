"""When a hand-over begins, and which Sentinel executes it."""

import pytest

from busyapi.stream.sentinel_failover import START_AGE_SECONDS, Readiness

FIRST, SECOND, THIRD = (("sentinel", port) for port in range(3))


def test_handover_begins_when_the_sentinel_that_asked_last_asks_again_soon() -> None:
    ready = Readiness("", {FIRST: 7.0, SECOND: 0.1, THIRD: 3.0})
    assert ready.newest == (SECOND, THIRD, FIRST)
    assert ready.delay == pytest.approx(START_AGE_SECONDS - 0.1)


@pytest.mark.parametrize("ages", [{}, {FIRST: START_AGE_SECONDS}, {FIRST: 7.0, SECOND: 3.0}])
def test_handover_is_not_delayed_if_no_sentinel_has_just_asked(
    ages: dict[tuple[str, int], float],
) -> None:
    assert Readiness("", ages).delay == 0
