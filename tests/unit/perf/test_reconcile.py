from typing import Any

import pytest

from perf.reconcile import disagreements
from tests.unit.perf.conftest import counts


def test_counts_that_agree_say_nothing() -> None:
    assert disagreements(counts()) == []


@pytest.mark.parametrize("who", ["counted", "archived", "lines"])
@pytest.mark.parametrize("by", [-1, 1])
def test_one_usage_more_or_less_anywhere_is_told(who: str, by: int) -> None:
    (said,) = disagreements(counts(**{who: 1000 + by}))
    assert f"{1000 + by:,}" in said


def test_a_201_that_nobody_stored_is_told() -> None:
    (said,) = disagreements(counts(seen=1001))
    assert "only 1,000 were stored" in said


def test_more_stored_than_was_answered_or_under_way_is_told() -> None:
    (said,) = disagreements(counts(seen=989))
    assert "at most 10 were under way" in said


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"statuses": {201: 997, 503: 3}}, "3 with 503"),
        ({"statuses": {201: 996, 503: 3, 500: 1}}, "1 with 500, 3 with 503"),
        ({"statuses": {201: 999, 200: 1}}, "1 with 200"),
        ({"errors": 2}, "wrk saw 2 errors"),
        ({"fault": "a.zst: id 8 where 7 should be"}, "id 8 where 7 should be"),
    ],
)
def test_anything_but_201_and_any_fault_is_told(other: dict[str, Any], said: str) -> None:
    (found,) = disagreements(counts(**other))
    assert said in found


def test_a_client_that_was_gone_got_no_wrong_answer() -> None:
    assert counts(statuses={201: 5, 499: 7}).not_201 == {}
