"""The committer that gets a request, and the ids that it assigns."""

import gc
import traceback
from contextlib import suppress

import pytest

from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl, AwaitedWrite, IdempotencyKey
from busyapi.commit.pool import CommitterPool
from busyapi.errors import NotSeeded, Overloaded, RedisUnavailable
from busyapi.ids import Seq
from busyapi.stream.redis_url import parse_redis_url
from busyapi.strides import Strides
from testkit.in_process import RecordingObserver


def make_pool(count: int, max_usages: int = 100) -> CommitterPool:
    admission = AdmissionControl(max_usages, 1000)
    endpoint = parse_redis_url("redis://127.0.0.1:1")
    members = [
        Committer(
            endpoint,
            index,
            count,
            tier="fsync",
            deadline=10,
            admission=admission,
            observer=RecordingObserver(),
        )
        for index in range(count)
    ]
    return CommitterPool(members, admission)


def mark_ready(committer: Committer) -> None:
    committer.session = object()  # type: ignore[assignment]
    committer.connection_state.mark_connected()


def know_strides(pool: CommitterPool, text: str) -> None:
    for committer in pool.committers:
        committer.strides = Strides.parse(text)


def submit(pool: CommitterPool, lines: list[bytes], key: IdempotencyKey | None = None) -> int:
    """Submit a request that no client waits for, and return its partition."""
    write = AwaitedWrite(lines, key)
    pool.submit(write)
    return write.partition


def test_ids_of_partitions_interleave_and_never_repeat() -> None:
    pool = make_pool(4)
    know_strides(pool, "4 1:4")
    assert pool.make_ids(Seq(3), 3, 0) == [1, 5, 9]
    assert pool.make_ids(Seq(3), 2, 3) == [8, 12]
    usage_ids = [usage_id for p in range(4) for usage_id in pool.make_ids(Seq(100), 100, p)]
    assert sorted(usage_ids) == list(range(1, 401))


def test_ids_follow_the_strides_of_their_partition() -> None:
    pool = make_pool(2)
    know_strides(pool, "1 1:1 5:2")
    assert pool.make_ids(Seq(4), 2, 0) == [3, 4]
    assert pool.make_ids(Seq(6), 2, 0) == [9, 11]
    assert pool.make_id(5, 1) == 10


async def test_requests_rotate_while_all_committers_are_equal() -> None:
    pool = make_pool(4)
    for committer in pool.committers:
        mark_ready(committer)
    assert sorted(submit(pool, [b"{}"]) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_request_goes_to_a_ready_committer_with_less_work() -> None:
    pool = make_pool(4)
    mark_ready(pool.committers[2])
    assert {submit(pool, [b"{}"]) for _ in range(6)} == {2}
    mark_ready(pool.committers[1])
    assert {submit(pool, [b"{}"]) for _ in range(6)} == {1}


async def test_key_goes_to_the_same_partition_when_partitions_are_added() -> None:
    pool, larger = make_pool(3), make_pool(8)
    with pytest.raises(NotSeeded):
        submit(larger, [b"{}"], IdempotencyKey("a", "body", "a"))
    for one in (pool, larger):
        know_strides(one, "3 1:3")
    for name in "abcdefghijkl":
        key = IdempotencyKey(name, "body", name)
        assert submit(pool, [b"{}"], key) == submit(larger, [b"{}"], key)


async def test_key_always_goes_to_the_same_committer_ready_or_not() -> None:
    pool = make_pool(4)
    know_strides(pool, "4 1:4")
    partitions = {}
    for name in "abcdefghijkl":
        partitions[name] = submit(pool, [b"{}"], IdempotencyKey(name, "body", name))
    assert len(set(partitions.values())) > 1
    mark_ready(pool.committers[0])
    for name, partition in partitions.items():
        assert submit(pool, [b"{}"], IdempotencyKey(name, "body", name)) == partition


async def test_request_above_the_limit_is_refused_and_not_counted() -> None:
    pool = make_pool(1, max_usages=2)
    submit(pool, [b"{}", b"{}"])
    with pytest.raises(Overloaded):
        submit(pool, [b"{}"])
    assert pool.admission.count == 2


async def test_committer_that_is_down_for_long_refuses_immediately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(1)
    submit(pool, [b"{}"])
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
    with pytest.raises(NotSeeded):
        submit(pool, [b"{}"])
    assert pool.admission.count == 1


async def test_each_refusal_is_a_separate_object(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(1)
    writes = [AwaitedWrite([b"{}"]) for _ in range(3)]
    for write in writes:
        pool.submit(write)
    pool.committers[0].fail_remaining()
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
    refusals: list[BaseException | None] = [write.future.exception() for write in writes]
    for _ in range(3):
        with pytest.raises(NotSeeded) as refused:
            submit(pool, [b"{}"])
        refusals.append(refused.value)
    assert len({id(refusal) for refusal in refusals}) == 6
    # An exception that is raised again keeps the frames of each time: of `submit` and the test.
    tracebacks = [refusal.__traceback__ for refusal in refusals[3:] if refusal]
    assert [len(traceback.extract_tb(frames)) for frames in tracebacks] == [3] * 3


async def test_refused_request_is_freed_without_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(1)
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 0.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(NotSeeded):
                submit(pool, [b"{}"])
        assert not [item for item in gc.get_objects() if isinstance(item, AwaitedWrite)]
    finally:
        gc.enable()


async def test_request_waits_for_a_partition_that_is_back_in_a_moment_not_at_one_that_refuses() -> (
    None
):
    pool = make_pool(3)
    for lost in (pool.committers[0], pool.committers[2]):
        lost.connection_state.mark_stopped()
    paused = pool.committers[1]
    mark_ready(paused)
    paused.session = None
    paused.connection_state.mark_disconnected(RedisUnavailable())
    assert {submit(pool, [b"{}"]) for _ in range(6)} == {1}
