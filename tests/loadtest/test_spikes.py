"""Each spike is named after what happened in its second. Events come from a real stack."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from loadtest.__main__ import print_progress
from loadtest.events import FSYNC, REWRITE, ROLL
from loadtest.local import Local, start_local
from loadtest.run import Plan, run
from loadtest.spikes import Group, find_limit, find_spikes, summarise_causes
from perf.stack import REWRITE_SIZE
from testkit.waiting import wait_until

QUIET, HIGH = 4.0, 9.0


def make_result(
    high: dict[int, float],
    events: Sequence[tuple[str, float, float, float | None]] = (),
    growth: dict[tuple[str, str], dict[int, float]] | None = None,
) -> dict[str, Any]:
    """Make a result of 20 seconds: the high p99s, events, and what counters grew by in a second."""
    grown = growth or {}

    def count(group: str, at: int) -> dict[str, float]:
        return {
            name: sum(0.05 + seconds.get(second, 0.0) for second in range(at))
            for (owner, name), seconds in grown.items()
            if owner == group
        }

    return {
        "openloop": {
            "seconds": 20,
            "series": [{"at": at, "created": 9, "p99": high.get(at, QUIET)} for at in range(20)],
        },
        "events": [
            {"name": name, "at": at, "seconds": seconds, "longest_ms": longest}
            for name, at, seconds, longest in events
        ],
        "samples": [
            {
                "at": float(at),
                "waiting": count("waiting", at),
                "outside": {"steal": 0.0, **count("outside", at)},
            }
            for at in range(22)
        ],
    }


def causes(result: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    return {spike.at: spike.causes for spike in find_spikes(result)}


def test_a_spike_is_above_twice_the_median_and_the_first_second_is_none() -> None:
    result = make_result({0: 99.0, 3: 2 * QUIET, 7: 2 * QUIET + 0.1})
    assert find_limit(result) == 2 * QUIET
    assert causes(result) == {7: ("unknown",)}


def test_a_rewrite_is_the_cause_in_every_second_that_it_touches() -> None:
    high = dict.fromkeys((4, 5, 6, 9), HIGH)
    result = make_result(high, [(REWRITE, 4.9, 1.2, None), (ROLL, 8.0, 1.0, None)])
    assert causes(result) == {4: (REWRITE,), 5: (REWRITE,), 6: (REWRITE,), 9: ("unknown",)}


def test_an_fsync_is_a_cause_only_if_it_took_as_long_as_the_median_p99() -> None:
    result = make_result({4: HIGH, 6: HIGH}, [(FSYNC, 4, 1, QUIET), (FSYNC, 6, 1, QUIET - 1)])
    assert causes(result) == {4: (FSYNC,), 6: ("unknown",)}


@pytest.mark.parametrize(
    ("group", "counter", "cause"),
    [
        ("waiting", "valkey", "scheduler"),
        ("waiting", "generator", "scheduler"),
        ("waiting", "flusher", "unknown"),
        ("outside", "steal", "steal"),
        ("outside", "other programs", "other programs"),
    ],
)
def test_a_counter_is_a_cause_if_it_grew_more_than_in_the_median_second(
    group: str, counter: str, cause: str
) -> None:
    grown = {(group, counter): {5: 0.11, 8: 0.09}}
    assert causes(make_result({5: HIGH, 8: HIGH}, growth=grown)) == {5: (cause,), 8: ("unknown",)}


def test_a_spike_without_a_cause_after_another_is_its_queue() -> None:
    result = make_result(dict.fromkeys((4, 5, 6, 8), HIGH), [(ROLL, 4.5, 0.01, None)])
    earlier = ("earlier spike",)
    assert causes(result) == {4: (ROLL,), 5: earlier, 6: earlier, 8: ("unknown",)}


def test_a_cause_counts_also_the_seconds_that_it_did_not_slow_down() -> None:
    rolls = [(ROLL, at, 0.1, None) for at in (3.0, 6.0, 9.0)]
    result = make_result({3: HIGH, 12: HIGH}, [*rolls, (REWRITE, 9.0, 0.1, None)])
    assert summarise_causes(result) == [
        Group("nothing", 15, 0, QUIET, QUIET),
        Group(ROLL, 2, 1, (QUIET + HIGH) / 2, HIGH),
        Group(f"{ROLL}, {REWRITE}", 1, 0, QUIET, QUIET),
        Group("unknown", 1, 1, HIGH, HIGH),
    ]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with start_local(tmp_path_factory.mktemp("stack"), 1, token=True) as target:
        yield target


PLAN = Plan(
    rate=50,
    seconds=3,
    connections=4,
    devices=9,
    invalid=0,
    even=True,
    scripts=(),
    warm_up=0,
)


def test_a_stack_with_a_token_accepts_only_posts_with_it(
    guarded: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(guarded, PLAN, print_progress)
    assert result.failures == []
    assert result.openloop["created"] == result.rows[0].archived == 150
    # The times are those of the load: its preparation is not in them.
    assert -1.1 < result.samples[0].at < 1 < result.samples[-1].at < 60
    monkeypatch.setattr(guarded, "authorization", "")
    refused = run(guarded, replace(PLAN, seconds=1), print_progress)
    assert refused.openloop["statuses"] == {"401": 50}


def test_the_aof_is_rewritten_at_the_size_of_the_bundled_valkey(guarded: Local) -> None:
    assert guarded.stack.server.client().config_get(REWRITE_SIZE) == {REWRITE_SIZE: "16777216"}


def test_a_rewrite_and_a_roll_have_their_times(guarded: Local) -> None:
    run(guarded, replace(PLAN, seconds=1), print_progress)
    guarded.stack.server.client().bgrewriteaof()
    since = time.time()
    wait_until(lambda: find_times(guarded, since, REWRITE), "the rewrite to be listed")
    assert find_times(guarded, since, ROLL) == []
    guarded.stack.stack.flushers[0].stop()
    assert len(find_times(guarded, since, ROLL)) == 1


def find_times(target: Local, since: float, name: str) -> list[float]:
    """Return the times of events after `since`; each must be over by now."""
    events = [event for event in target.list_events(since) if event.name == name]
    assert all(event.at + event.seconds <= time.time() - since for event in events)
    return [event.at for event in events if event.at > -0.1]
