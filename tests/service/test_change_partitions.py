"""The number of partitions changes while devices post: no post fails, and no id comes twice.

As in a rolling upgrade, API processes with both numbers run at the same time, and flushers restart
one by one. Each API process has a port of its own, as pods have behind a Service.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from testkit.api_client import USAGE, check_problem, check_stored, send
from testkit.archive.command import run_verify
from testkit.history import Outcome, Request, digest
from testkit.http1 import fetch
from testkit.processes import Api, Flusher
from testkit.release import Release
from testkit.servers import Server
from testkit.waiting import wait_until

KEYS = 40
POSTS = 10_000


def make_keyed_usage(number: int) -> dict[str, str]:
    return {**USAGE, "marker": f"key-{number}"}


def send_keyed(port: int, number: int) -> tuple[int, bool]:
    """Send a post with a key; return its id, and whether it was replayed."""
    answer = send(port, make_keyed_usage(number), idempotency_key=f"key-{number}")
    return check_stored(answer), "idempotency-replayed" in answer.headers


@pytest.mark.timeout(600)
def test_partitions_grow_and_shrink_under_load_without_a_failed_post(
    valkey: Server, tmp_path: Path
) -> None:
    with Release(tmp_path, valkey, 4, 8) as release, ExitStack() as apis:
        flushers, stack = release.stack.flushers, release.stack
        for flusher in release.flushers:
            flusher.wait_until_ready()
        first = apis.enter_context(release.run_api(4))
        keyed = [send_keyed(first.port, number) for number in range(KEYS)]
        with release.post(first):
            release.wait_for_posts(POSTS // 5)
            # New flushers and new API processes start before the old ones have restarted.
            with release.run_api(8) as second, release.post(second):
                release.wait_for_posts(POSTS // 20)
                release.roll(8)
                wait_until(second.is_ready, "eight partitions", seconds=30)
                release.wait_for_posts(POSTS // 5)
                for number, (usage_id, _) in enumerate(keyed):
                    for api in (first, second):
                        assert send_keyed(api.port, number) == (usage_id, True)
        strides = [release.strides(partition) for partition in range(8)]
        assert [text.split()[-1].split(":")[1] for text in strides] == ["8"] * 8
        assert strides[5].split()[1].split(":")[0] == strides[1].split()[-1].split(":")[0]
        with release.run_api(4) as third, release.post(third):
            release.roll(4)
            release.wait_for_posts(POSTS // 5)
            for number, (usage_id, _) in enumerate(keyed):
                assert send_keyed(third.port, number) == (usage_id, True)
        with release.run_api(8) as fourth, release.post(fourth):
            release.roll(8)
            release.wait_for_posts(POSTS // 5)
        assert [release.strides(partition) for partition in range(8)] == strides
        last = apis.enter_context(release.run_api(4))
        stack.port = last.port
        stack.wait_until_archived(60)
        for number, (usage_id, _) in enumerate(keyed):
            digests = (digest(make_keyed_usage(number)),)
            release.history.add(Request(digests=digests, outcome=Outcome.OK, ids=(usage_id,)))
        _check_all_ids(release, last)
        for flusher in flushers:
            flusher.terminate()
        assert {flusher.wait(30) for flusher in flushers} == {0}
        _check_lost_record_is_noticed(valkey, release, last)
        assert len(release.history.requests) >= POSTS
        assert release.history.usages[Outcome.REFUSED] == 0, release.history
        assert release.history.usages[Outcome.UNKNOWN] == 0, release.history
        verdict = stack.check_history(release.history)
        assert verdict.ok, verdict
        assert run_verify(stack.archive) == 0


def _check_lost_record_is_noticed(server: Server, release: Release, old: Api) -> None:
    """Check that a partition that left is not forgotten, also by a process that never knew it."""
    largest = max(i for request in release.history.requests for i in request.ids)
    unknown = largest + 800 - (largest + 800 - 7) % 8  # of partition 6
    server.client().delete("busyapi:{6}:state", "busyapi:{6}:seq")
    with release.run_api(4) as new:
        for api in (old, new):
            check_problem(fetch(api.port, f"/api/usages/{unknown}"), 503)
            check_problem(fetch(api.port, f"/api/usages/{unknown + 1}"), 404)
            check_problem(fetch(api.port, "/api/usages/count"), 503)


def _check_all_ids(release: Release, api: Api) -> None:
    ids = [i for request in release.history.requests for i in request.ids]
    assert len(ids) == len(set(ids))
    for usage_id in ids[:: max(1, len(ids) // 1000)] + ids[-1:]:
        answer = fetch(api.port, f"/api/usages/{usage_id}")
        assert answer.status == 200, (usage_id, answer)
        assert answer.json()["id"] == usage_id
    counts = fetch(api.port, "/api/usages/count").json()
    assert counts["count"] == len(ids)
    check_problem(fetch(api.port, f"/api/usages/{max(ids) + 800}"), 404)


@pytest.mark.timeout(240)
def test_flusher_that_dies_at_any_step_of_a_change_continues_it(
    valkey: Server, tmp_path: Path
) -> None:
    with Release(tmp_path, valkey, 1, 2) as release, release.run_api(2) as api:
        parent, child = release.stack.flushers
        parent.wait_until_ready()
        for flusher in (parent, child):
            flusher.environment["BUSYAPI_PARTITIONS"] = "2"
        with release.post(api):
            release.wait_for_posts(50)
            for spec in ("flusher-after-pause=kill", "flusher-after-widen=kill"):
                _crash(parent, spec)
            parent.spawn()
            parent.wait_until_ready()
            for spec in ("flusher-before-begin=kill", "flusher-after-begin=kill"):
                _crash(child, spec)
            child.spawn()
            release._processes.callback(child.close)
            child.wait_until_ready()
            release.wait_for_posts(50)
        release.stack.port = api.port
        release.stack.wait_until_archived(60)
        _check_all_ids(release, api)
        for flusher in (parent, child):
            flusher.terminate()
            assert flusher.wait(30) == 0
        verdict = release.stack.check_history(release.history)
        assert verdict.ok, verdict
        # While the flusher of the only partition is dead within its pause, posts may be refused.
        assert release.history.usages[Outcome.UNKNOWN] == 0, verdict
        strides = [release.strides(partition) for partition in range(2)]
        (first,) = (step.split(":")[0] for step in strides[0].split()[2:])
        assert strides == [f"1 1:1 {first}:2", f"1 {first}:2"]
        assert verdict.skipped == int(first) - 1, "ids jumped"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", ["flusher-after-pause", "flusher-after-widen"])
def test_redis_that_dies_while_a_flusher_widens_its_stride_repeats_no_id(
    valkey: Server, tmp_path: Path, step: str
) -> None:
    with Release(tmp_path, valkey, 1, 2) as release, release.run_api(2) as api:
        parent, child = release.stack.flushers
        parent.wait_until_ready()
        for flusher in (parent, child):
            flusher.environment["BUSYAPI_PARTITIONS"] = "2"
        child.spawn()
        release._processes.callback(child.close)
        with release.post(api):
            release.wait_for_posts(50)
            parent.close()
            parent.environment["BUSYAPI_FAILPOINTS"] = f"{step}=sleep:3"
            parent.spawn()
            del parent.environment["BUSYAPI_FAILPOINTS"]
            wait_until(lambda: _is_paused(valkey), "the pause", seconds=30)
            valkey.kill9()
            valkey.start()
            release.flushers.append(child)
            release.wait_until_flushing()
            release.wait_for_posts(100)
        release.stack.port = api.port
        release.stack.wait_until_archived(60)
        for flusher in (parent, child):
            flusher.terminate()
            assert flusher.wait(30) == 0
        verdict = release.stack.check_history(release.history)
        assert verdict.ok, verdict


def _is_paused(server: Server) -> bool:
    return bool(server.client().hget("busyapi:{0}:state", "paused"))


def _crash(flusher: Flusher, spec: str) -> None:
    flusher.close()
    flusher.environment["BUSYAPI_FAILPOINTS"] = spec
    flusher.spawn()
    del flusher.environment["BUSYAPI_FAILPOINTS"]
    assert flusher.wait(30) == -9, spec
