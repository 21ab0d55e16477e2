"""Which committer takes a request, and which ids it gives."""

import gc
import traceback
from contextlib import suppress

import pytest

from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl, AwaitedWrite, IdempotencyKey
from busyapi.commit.pool import CommitterPool
from busyapi.errors import NotSeeded, Overloaded
from busyapi.ids import Seq
from busyapi.stream.endpoint import parse_redis_url
from testkit.in_process import RecordingObserver


def committers(count: int, most: int = 100) -> CommitterPool:
    admission = AdmissionControl(most, 1000)
    where = parse_redis_url("redis://127.0.0.1:1")
    made = [
        Committer(
            where,
            each,
            count,
            tier="fsync",
            deadline=10,
            admission=admission,
            observer=RecordingObserver(),
        )
        for each in range(count)
    ]
    return CommitterPool(made, admission)


def mark_ready(committer: Committer) -> None:
    committer._session = object()  # type: ignore[assignment]
    committer.connection_state.mark_connected()


def submit(many: CommitterPool, lines: list[bytes], key: IdempotencyKey | None = None) -> int:
    """Submit a request that nobody waits for; return its partition."""
    write = AwaitedWrite(lines, key)
    many.submit(write)
    return write.partition


def test_ids_of_partitions_interleave_and_never_meet() -> None:
    four = committers(4)
    assert four.make_ids(Seq(3), 3, 0) == [1, 5, 9]
    assert four.make_ids(Seq(3), 2, 3) == [8, 12]
    everything = [each for p in range(4) for each in four.make_ids(Seq(100), 100, p)]
    assert sorted(everything) == list(range(1, 401))


async def test_requests_go_round_while_all_committers_are_alike() -> None:
    four = committers(4)
    for each in four.committers:
        mark_ready(each)
    assert sorted(submit(four, [b"{}"]) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_request_goes_to_a_ready_committer_with_less_to_do() -> None:
    four = committers(4)
    mark_ready(four.committers[2])
    assert {submit(four, [b"{}"]) for _ in range(6)} == {2}
    mark_ready(four.committers[1])
    assert {submit(four, [b"{}"]) for _ in range(6)} == {1}


async def test_key_always_meets_the_same_committer_ready_or_not() -> None:
    four = committers(4)
    met = {}
    for name in "abcdefghijkl":
        met[name] = submit(four, [b"{}"], IdempotencyKey(name, "body", name))
    assert len(set(met.values())) > 1
    mark_ready(four.committers[0])
    for name, partition in met.items():
        assert submit(four, [b"{}"], IdempotencyKey(name, "body", name)) == partition


async def test_request_too_many_is_refused_and_not_counted() -> None:
    one = committers(1, most=2)
    submit(one, [b"{}", b"{}"])
    with pytest.raises(Overloaded):
        submit(one, [b"{}"])
    assert one.admission.count == 2


async def test_committer_that_is_down_for_long_refuses_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = committers(1)
    submit(one, [b"{}"])
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
    with pytest.raises(NotSeeded):
        submit(one, [b"{}"])
    assert one.admission.count == 1


async def test_each_refusal_is_an_object_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one = committers(1)
    waiting = [AwaitedWrite([b"{}"]) for _ in range(3)]
    for each in waiting:
        one.submit(each)
    one.committers[0].fail_remaining()
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
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
    one = committers(1)
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(NotSeeded):
                submit(one, [b"{}"])
        assert not [each for each in gc.get_objects() if isinstance(each, AwaitedWrite)]
    finally:
        gc.enable()
