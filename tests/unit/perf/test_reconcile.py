from typing import Any

import pytest

from perf.reconcile import find_disagreements
from tests.unit.perf.conftest import make_counts


def test_counts_that_agree_have_no_disagreement() -> None:
    assert find_disagreements(make_counts()) == []


@pytest.mark.parametrize("name", ["counted", "archived", "lines"])
@pytest.mark.parametrize("by", [-1, 1])
def test_one_usage_more_or_less_anywhere_is_reported(name: str, by: int) -> None:
    (message,) = find_disagreements(make_counts(**{name: 1000 + by}))
    assert f"{1000 + by:,}" in message


def test_a_201_without_a_stored_usage_is_reported() -> None:
    (message,) = find_disagreements(make_counts(seen=1001))
    assert "only 1,000 were stored" in message


def test_more_stored_than_answered_or_pending_is_reported() -> None:
    (message,) = find_disagreements(make_counts(seen=989))
    assert "at most 10 were pending" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statuses": {201: 997, 503: 3}}, "3 with 503"),
        ({"statuses": {201: 996, 503: 3, 500: 1}}, "1 with 500, 3 with 503"),
        ({"statuses": {201: 999, 200: 1}}, "1 with 200"),
        ({"errors": 2}, "wrk saw 2 errors"),
        ({"fault": "a.zst: id 8 where 7 should be"}, "id 8 where 7 should be"),
    ],
)
def test_anything_but_201_and_any_fault_is_reported(changes: dict[str, Any], message: str) -> None:
    (disagreement,) = find_disagreements(make_counts(**changes))
    assert message in disagreement


def test_a_client_that_disconnected_got_no_wrong_response() -> None:
    assert make_counts(statuses={201: 5, 499: 7}).not_201 == {}
