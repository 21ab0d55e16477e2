"""Which lane takes a request, and which ids it gives."""

import gc
import traceback
from contextlib import suppress

import pytest

from busyapi.commit.batch import Admission, Awaited, Key
from busyapi.commit.lane import Lane
from busyapi.commit.lanes import Lanes
from busyapi.errors import NotSeeded, Overloaded
from busyapi.ids import Seq
from busyapi.stream.endpoint import endpoint
from testkit.in_process import Failures


def lanes(count: int, most: int = 100) -> Lanes:
    admission = Admission(most, 1000)
    where = endpoint("redis://127.0.0.1:1")
    made = [
        Lane(
            where,
            each,
            count,
            tier="fsync",
            deadline=10,
            admission=admission,
            observer=Failures(),
        )
        for each in range(count)
    ]
    return Lanes(made, admission)


def mark_ready(lane: Lane) -> None:
    lane._session = object()  # type: ignore[assignment]
    lane.standing.recovered()


def submit(many: Lanes, lines: list[bytes], key: Key | None = None) -> int:
    """Submit a request that nobody waits for; give its partition."""
    return many.submit(Awaited(lines, key))


def test_ids_of_partitions_interleave_and_never_meet() -> None:
    four = lanes(4)
    assert four.ids(Seq(3), 3, 0) == [1, 5, 9]
    assert four.ids(Seq(3), 2, 3) == [8, 12]
    everything = [each for p in range(4) for each in four.ids(Seq(100), 100, p)]
    assert sorted(everything) == list(range(1, 401))


async def test_requests_go_round_while_all_lanes_are_alike() -> None:
    four = lanes(4)
    for each in four.lanes:
        mark_ready(each)
    assert sorted(submit(four, [b"{}"]) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_request_goes_to_a_ready_lane_with_less_to_do() -> None:
    four = lanes(4)
    mark_ready(four.lanes[2])
    assert {submit(four, [b"{}"]) for _ in range(6)} == {2}
    mark_ready(four.lanes[1])
    assert {submit(four, [b"{}"]) for _ in range(6)} == {1}


async def test_key_always_meets_the_same_lane_ready_or_not() -> None:
    four = lanes(4)
    met = {}
    for name in "abcdefghijkl":
        met[name] = submit(four, [b"{}"], Key(name, "body", name))
    assert len(set(met.values())) > 1
    mark_ready(four.lanes[0])
    for name, partition in met.items():
        assert submit(four, [b"{}"], Key(name, "body", name)) == partition


async def test_request_too_many_is_refused_and_not_counted() -> None:
    one = lanes(1, most=2)
    submit(one, [b"{}", b"{}"])
    with pytest.raises(Overloaded):
        submit(one, [b"{}"])
    assert one.admission.count == 2


async def test_lane_that_is_down_for_long_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = lanes(1)
    submit(one, [b"{}"])
    monkeypatch.setattr("busyapi.commit.standing.PATIENCE_SECONDS", 0.0)
    with pytest.raises(NotSeeded):
        submit(one, [b"{}"])
    assert one.admission.count == 1


async def test_each_refusal_is_an_object_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one = lanes(1)
    waiting = [Awaited([b"{}"]) for _ in range(3)]
    for each in waiting:
        one.submit(each)
    one.lanes[0].abandon()
    monkeypatch.setattr("busyapi.commit.standing.PATIENCE_SECONDS", 0.0)
    refusals: list[BaseException | None] = [each.future.exception() for each in waiting]
    for _ in range(3):
        with pytest.raises(NotSeeded) as refused:
            submit(one, [b"{}"])
        refusals.append(refused.value)
    assert len({id(each) for each in refusals}) == 6
    # One that is raised again has the frames of every time: here of `submit` and of the test.
    assert [len(traceback.extract_tb(each.__traceback__)) for each in refusals[3:] if each] == [
        3
    ] * 3


async def test_refused_request_goes_without_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    one = lanes(1)
    monkeypatch.setattr("busyapi.commit.standing.PATIENCE_SECONDS", 0.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(NotSeeded):
                submit(one, [b"{}"])
        assert not [each for each in gc.get_objects() if isinstance(each, Awaited)]
    finally:
        gc.enable()
