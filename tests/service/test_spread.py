"""Partitions on several servers: one dies or fails over, one is added, and no partition moves."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.holders import read_holders
from busyapi.cli import main
from testkit.archive_reader import read_archive
from testkit.history import History, Outcome
from testkit.http1 import fetch
from testkit.load import Load
from testkit.processes import Api, Flusher, Stack, answers_ok
from testkit.release import Release
from testkit.replicated import CONFIG, SETTINGS, return_to
from testkit.servers import Server
from testkit.spread import Spread
from testkit.topologies import SentinelSet
from testkit.waiting import wait_until

POSTS = 1000
DEADLINE = {"BUSYAPI_COMMIT_DEADLINE": "4"}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as running:
        yield [running.enter_context(Server(tmp_path / name)) for name in ("one", "two", "three")]


def find_partitions(server: Server) -> set[str]:
    keys: Any = server.client().keys("busyapi:*:seq")
    return {key.split(":")[1] for key in keys}


def post(stack: Stack, history: History, requests: int) -> None:
    with Load(stack.port, connections=4, requests=requests, history=history) as load:
        load.finish()


def read_partition_check(api: Stack | Api) -> str:
    lines = fetch(api.port, "/readyz").body.decode().splitlines()
    return next(line for line in lines if line.startswith("partition: "))


@pytest.mark.faults
def test_posts_go_on_while_a_server_is_down_and_none_is_lost(
    servers: list[Server], tmp_path: Path
) -> None:
    one, two, _ = servers
    store, history = Spread({"0-1": one, "2-3": two}), History()
    with Stack(tmp_path / "stack", store, partitions=4, settings=DEADLINE) as stack:
        with (
            Load(stack.port, connections=8, history=history),
            Load(stack.port, connections=4, batch=3, keys=True, history=history),
        ):
            wait_until(lambda: history.acknowledged > 500, "usages")
            one.kill9()
            wait_until(
                lambda: "without 0, 1" in read_partition_check(stack), "the loss", seconds=20
            )
            assert f"{one.port}" in read_partition_check(stack)
            alone = History()
            post(stack, alone, 300)
            assert alone.usages[Outcome.OK] == 300, alone
            assert {i % 4 for request in alone.requests for i in request.ids} == {3, 0}
            # A process that starts now learns from the other server how ids name partitions.
            stack.apis[0].terminate()
            assert stack.apis[0].wait(30) == 0
            stack.apis[0].spawn()
            wait_until(lambda: answers_ok(stack.port, "/readyz"), "the API", seconds=30)
            usage_id = alone.requests[-1].ids[0]
            assert fetch(stack.port, f"/api/usages/{usage_id}").status == 200
            assert fetch(stack.port, f"/api/usages/{usage_id + 4_000_000}").status == 404
            one.start()
            for flusher in stack.flushers:
                flusher.wait_until_ready()
            wait_until(lambda: read_partition_check(stack) == "partition: ok", "all partitions")
        history.requests += alone.requests
        stack.wait_until_archived()
        assert [find_partitions(server) for server in (one, two)] == [
            {"{0}", "{1}"},
            {"{2}", "{3}"},
        ]
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(history)
        assert verdict.ok, verdict
        assert verdict.skipped == 0
        assert history.usages[Outcome.OK] > 500
        assert all(part.lines for part in read_archive(stack.archive).partitions.values())


def test_setting_that_moves_a_partition_is_refused_and_loses_nothing(
    servers: list[Server], tmp_path: Path
) -> None:
    one, two, three = servers
    store, history = Spread({"0-1": one, "2": two}), History()
    with Stack(tmp_path / "stack", store, partitions=3, settings=DEADLINE) as stack:
        post(stack, history, 30)
        for flusher in stack.flushers:
            assert flusher.stop() == 0
        post(stack, history, 30)  # they wait on the servers
        first, _, last = stack.flushers
        assert [
            one.command("HGET", "busyapi:{1}:state", "server"),
            two.command("HGET", "busyapi:{2}:state", "server"),
        ] == ["0", "2"]
        moved = "moves partition 2 from the server whose lowest partition is 2 to the one whose"
        check_refused(last, one.url, moved)
        inserted = Spread({"0-1": three, "2": two, "3": one})  # its server is that of partition 3
        exchanged = "the addresses of the servers of partitions 0 and 3 are exchanged"
        check_refused(first, inserted.url, exchanged)
        # An API process with a setting that moves a partition stores nothing there.
        api = stack.apis[0]
        api.terminate()
        assert api.wait(30) == 0
        api.environment["BUSYAPI_REDIS_URL"] = one.url
        api.spawn()
        wait_until(lambda: answers_ok(stack.port, "/readyz"), "the API", seconds=30)
        post(stack, history, 30)
        assert find_partitions(one) == {"{0}", "{1}"}
        assert history.usages[Outcome.OK] == 90, history
        api.environment["BUSYAPI_REDIS_URL"] = store.url
        for process in (api, *stack.flushers):
            process.close()
            process.start()
        stack.wait_until_archived()
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(history)
        assert verdict.ok, verdict
        assert verdict.skipped == 0


@pytest.mark.faults
def test_partitions_of_a_server_that_is_lost_for_good_continue_on_an_empty_one(
    servers: list[Server], tmp_path: Path
) -> None:
    one, two, three = servers  # the third is a second process on the machine of the first
    store, history = Spread({"0": one, "1": two}), History()
    with Stack(tmp_path / "stack", store, partitions=2, settings=DEADLINE) as stack:
        post(stack, history, 40)
        stack.wait_until_archived()
        two.kill9()
        two.wipe()
        first, second = stack.flushers
        second.terminate()
        second.wait(30)
        check_refused(second, one.url, "moves partition 1 from the server")
        new = Spread({"0": one, "1": three})
        for process in (*stack.apis, *stack.flushers):
            process.environment["BUSYAPI_REDIS_URL"] = new.url
        for process in (first, second, stack.apis[0]):
            process.close()
            process.start()
        wait_until(lambda: read_partition_check(stack) == "partition: ok", "all partitions")
        assert "Redis has lost its data" in second.tail()
        post(stack, history, 40)
        stack.wait_until_archived()
        assert {i % 2 for request in history.requests[40:] for i in request.ids} == {0, 1}
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(history)
        assert verdict.ok, verdict
        assert verdict.skipped


def check_refused(flusher: Flusher, url: str, reason: str) -> None:
    """Check that a flusher refuses this value of BUSYAPI_REDIS_URL, and put the former one back."""
    former = flusher.environment["BUSYAPI_REDIS_URL"]
    flusher.environment["BUSYAPI_REDIS_URL"] = url
    flusher.spawn()
    wait_until(lambda: reason in flusher.tail(), f"{flusher} to refuse", seconds=20)
    assert not flusher.is_ready()
    assert flusher.stop() == 0
    flusher.environment["BUSYAPI_REDIS_URL"] = former


@pytest.mark.faults
def test_failover_of_one_group_of_servers_is_decided_by_its_own_flusher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as running:
        one, two = (
            running.enter_context(SentinelSet(tmp_path / name, config=CONFIG))
            for name in ("one", "two")
        )
        settings = SETTINGS | {"BUSYAPI_REPLICAS": "1"}
        store = Spread({"0": one, "1": two})
        stack = Stack(tmp_path / "stack", store, partitions=2, settings=settings)
        running.enter_context(stack)
        with Load(stack.port, connections=8) as load:
            wait_until(lambda: load.history.acknowledged > 50, "usages")
            old = two.primary()
            old.kill9()
            new = two.wait_for_failover(old)
            return_to(old, new)
            for process in stack.processes:
                process.wait_until_ready(60)
            wait_for_more(load)
            for name, value in (store.settings() | settings).items():
                monkeypatch.setenv(name, value)
            assert main(["hand-over", "--partition", "1"]) == 0
            assert two.wait_for_failover(new) is old
            wait_for_more(load)
        stack.wait_until_archived(30)
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(load.history)
        assert verdict.ok, verdict
        assert not verdict.skipped
        assert one.primary() is one.servers[0]
        assert "flusher_not_ready" not in stack.flushers[0].log.read_text()
        for number, group in enumerate((one, two)):
            addresses = {f"127.0.0.1:{server.port}" for server in group.servers}
            assert read_holders(stack.archive / f"p{number:02d}").addresses == addresses


def wait_for_more(load: Load) -> None:
    goal = load.history.acknowledged + 50
    wait_until(lambda: load.history.acknowledged > goal, "usages", seconds=30)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_partitions_are_added_on_another_server_under_load_without_a_failed_post(
    servers: list[Server], tmp_path: Path
) -> None:
    one, two, three = servers
    before = Spread({"0-1": one, "2-3": two})
    after = Spread(before.stores | {"4-7": three})
    with Release(tmp_path / "release", before, 4, 8) as release:
        for flusher in release.flushers:
            flusher.wait_until_ready()
        with release.run_api(4) as old, release.post(old):
            release.wait_for_posts(POSTS)
            for flusher in release.stack.flushers:
                flusher.environment["BUSYAPI_REDIS_URL"] = after.url
            with release.run_api(8) as new, release.post(new):
                release.roll(8)
                wait_until(new.is_ready, "eight partitions", seconds=30)
                release.wait_for_posts(POSTS)
                release.stack.port = new.port
        with release.run_api(8) as last:
            release.stack.port = last.port
            release.stack.wait_until_archived(60)
        for flusher in release.flushers:
            flusher.terminate()
        assert {flusher.wait(30) for flusher in release.flushers} == {0}
        assert find_partitions(three) == {f"{{{number}}}" for number in range(4, 8)}
        assert {*release.history.usages} == {Outcome.OK}, release.history
        verdict = release.stack.check_history(release.history)
        assert verdict.ok, verdict
        archive = read_archive(release.stack.archive)
        assert all(archive.partitions[number].lines for number in range(8))


@pytest.mark.faults
def test_partitions_begin_on_a_new_group_of_servers_whose_decider_waits_too(
    tmp_path: Path,
) -> None:
    with ExitStack() as running:
        one, two = (
            running.enter_context(SentinelSet(tmp_path / name, config=CONFIG))
            for name in ("one", "two")
        )
        release = Release(tmp_path / "release", Spread({"0": one, "1-3": two}), 1, 3)
        for flusher in release.stack.flushers:
            flusher.environment |= SETTINGS | {"BUSYAPI_REPLICAS": "1"}
        running.enter_context(release)
        with release.run_api(3) as api, release.post(api):
            release.wait_for_posts(50)
            # A StatefulSet restarts the parent only after the pods of new partitions are ready.
            release.roll(3)
            wait_until(lambda: read_partition_check(api) == "partition: ok", "all partitions")
            release.wait_for_posts(200)
            release.stack.port = api.port
        with release.run_api(3) as last:
            release.stack.port = last.port
            release.stack.wait_until_archived(60)
        for flusher in release.flushers:
            flusher.terminate()
        assert {flusher.wait(30) for flusher in release.flushers} == {0}
        assert {*release.history.usages} == {Outcome.OK}, release.history
        verdict = release.stack.check_history(release.history)
        assert verdict.ok, verdict
        archive = read_archive(release.stack.archive)
        assert all(archive.partitions[number].lines for number in range(3))
