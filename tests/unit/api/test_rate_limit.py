"""Token buckets: the rate that they allow, and the bound on their number."""

import pytest

from busyapi.api import rate_limit
from busyapi.api.rate_limit import Excess, RateLimiter, RefusedClients, client_network


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    manual_clock = Clock()
    monkeypatch.setattr(rate_limit, "monotonic", manual_clock)
    return manual_clock


def test_over_time_no_more_passes_than_the_rate_and_one_burst(clock: Clock) -> None:
    buckets = RateLimiter(10, 20)
    for cost in (1, 7, 20, 300):
        total = 0
        for _ in range(2000):
            if not buckets.charge(f"device-{cost}", cost):
                total += cost
            clock.now += 0.1
        # 200 s at 10 a second, plus one burst or one batch.
        assert 0.9 * 2000 - cost <= total <= 2000 + max(20, cost), cost


def test_a_refused_request_passes_after_the_returned_time(clock: Clock) -> None:
    buckets = RateLimiter(2, 4)
    assert buckets.charge("a", 3) == 0
    seconds = buckets.charge("a", 4)
    assert seconds == pytest.approx(1.5)
    clock.now += seconds - 0.01
    assert buckets.charge("a", 4) > 0
    clock.now += 0.02
    assert buckets.charge("a", 4) == 0


@pytest.mark.usefixtures("clock")
def test_the_rest_of_a_batch_is_charged_like_a_whole_one() -> None:
    buckets = RateLimiter(2, 4)
    assert buckets.charge("a", 1) == 0
    assert buckets.charge("a", 999, already_charged=1) == 0
    assert buckets.charge("a", 1) == pytest.approx((1000 - 4 + 1) / 2)


@pytest.mark.usefixtures("clock")
def test_the_table_is_bounded_and_drops_the_longest_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 3)
    buckets = RateLimiter(1, 1)
    for name in ("a", "b", "c", "a", "d"):
        buckets.charge(name, 1)
    assert list(buckets._buckets) == ["c", "a", "d"]


@pytest.mark.parametrize(
    ("address", "common"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
        ("::" + "1" * 44, "::" + "1" * 44),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address: str, common: str) -> None:
    assert client_network(address) == common


def test_the_level_of_a_bucket_is_read_without_a_charge(clock: Clock) -> None:
    buckets = RateLimiter(2, 4)
    assert buckets.read_level("a") == 4
    assert buckets.charge("a", 7) == 0
    assert buckets.read_level("a") == -3
    clock.now += 2
    assert buckets.read_level("a") == 1
    clock.now += 10
    assert buckets.read_level("a") == 4


def test_a_refusal_ends_with_its_time_and_applies_to_one_name(clock: Clock) -> None:
    refused = RefusedClients()
    refused.add("a", Excess("tenant", 1.3))
    assert (refused.find("a"), refused.find("b")) == (Excess("tenant", 2.0), None)
    clock.now += 1.5
    assert refused.find("a") == Excess("tenant", 0.5)
    clock.now += 0.5
    assert refused.find("a") is None


def test_the_table_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("busyapi.api.rate_limit.MAX_CLIENTS", 2)
    refused = RefusedClients()
    for name in ("a", "b", "c"):
        refused.add(name, Excess("credential", 60))
    assert [bool(refused.find(name)) for name in ("a", "b", "c")] == [False, True, True]
