"""Which replicas must confirm: the set shrinks and grows, and is never too small."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from busyapi.errors import DurabilityNotMet
from testkit.in_process import (
    gather_results,
    make_flusher,
    poll_until,
    run_committer,
    run_flusher,
    seed_once,
    wait_until_flushing,
)
from testkit.servers import Server
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until


async def test_set_shrinks_without_a_lost_replica_and_grows_when_it_is_back(trio: Trio) -> None:
    lost, kept = trio.replicas
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated") as committer,
    ):
        assert await committer.post(b"{}") == 1
        assert trio.holders == {trio.primary, lost, kept}
        lost.kill9()
        assert await committer.post(b"{}")
        assert trio.holders == {trio.primary, kept}
        lost.wipe()
        lost.start()
        await poll_until(lambda: lost in trio.holders, "the replica to hold everything again")
        assert await committer.post(b"{}")
        assert lost.client().get("busyapi:{0}:seq") == trio.primary.client().get("busyapi:{0}:seq")


async def test_silent_replica_is_confirmed_without_only_after_it_left_the_holders(
    trio: Trio,
) -> None:
    silent, kept = trio.replicas
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated", deadline=20.0) as committer,
    ):
        assert await committer.post(b"{}") == 1
        silent.pause()
        answer = committer.post(b"{}")
        while not answer.done():
            before = trio.holders
            await asyncio.sleep(0.005)
        assert before == trio.holders == {trio.primary, kept}
        assert await answer
        silent.resume()
        await poll_until(lambda: silent in trio.holders, "the replica to hold everything again")


async def test_fewer_replicas_than_the_minimum_are_refused_and_stay_holders(trio: Trio) -> None:
    lost, _ = trio.replicas
    flusher = make_flusher(trio.where, trio.archive, tier="replicated", min_replicas=2)
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated", min_replicas=2, deadline=2.0) as committer,
    ):
        assert await committer.post(b"{}") == 1
        lost.kill9()
        await poll_until(lambda: "BUSYAPI_MIN_REPLICAS is 2" in flusher.not_ready_reason, "it")
        await poll_until(lambda: committer.committer.durability_error, "the committer to refuse")
        (refused,) = await gather_results([committer.post(b"{}")])
        assert isinstance(refused, DurabilityNotMet)
        assert "1 replicas can confirm, BUSYAPI_MIN_REPLICAS is 2" in str(refused)
        assert trio.holders == {trio.primary, *trio.replicas}
        lost.start()
        await committer.wait_until_ready()
        assert await committer.post(b"{}")


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("appendonly", "no", "yes"),
    ],
)
async def test_replica_with_a_weak_setting_stops_commits_and_is_named(
    trio: Trio, setting: str, value: str, right: str
) -> None:
    weak = trio.replicas[0]
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated", deadline=2.0) as committer,
    ):
        assert await committer.post(b"{}") == 1
        weak.client().config_set(setting, value)
        await poll_until(lambda: committer.committer.durability_error, "commits to be refused")
        expected = f"replica 127.0.0.1:{weak.port} must not confirm: {setting} is {value}"
        assert expected in str(committer.committer.durability_error)
        weak.client().config_set(setting, right)
        await committer.wait_until_ready()
        assert await committer.post(b"{}")


async def test_commits_are_refused_while_a_server_has_another_priority_than_0(trio: Trio) -> None:
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher):
        for server in (trio.primary, trio.replicas[0]):
            server.client().config_set("replica-priority", 100)
            named = f"set `replica-priority 0` on 127.0.0.1:{server.port}"
            await poll_until(lambda: named in flusher.not_ready_reason, "it to be named")  # noqa: B023
            server.client().config_set("replica-priority", 0)
            await wait_until_flushing(flusher)


async def test_commits_wait_until_the_flusher_has_inspected_a_new_connection(trio: Trio) -> None:
    await seed_once(trio.where, trio.archive, tier="replicated")
    async with run_committer(trio.where, tier="replicated", deadline=2.0) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}") == 1
        # Nothing is lost between the two: it is online again with all data. But on Redis 7.0 it
        # could also be online without an active append-only file.
        trio.replicas[0].kill9()
        trio.replicas[0].start()
        await poll_until(
            lambda: "has not inspected it yet" in str(committer.committer.durability_error),
            "the connection to be noticed",
        )
        await seed_once(trio.where, trio.archive, tier="replicated")
        await committer.wait_until_ready()
        assert await committer.post(b"{}")


async def test_other_tiers_forget_the_holders(trio: Trio) -> None:
    async with run_flusher(make_flusher(trio.where, trio.archive, tier="replicated")):
        await poll_until(lambda: trio.holders, "holders")
    with capture_logs() as logs:
        await seed_once(trio.where, trio.archive)
    assert not trio.holders
    assert "holders_deleted" in [line["event"] for line in logs]


async def test_server_that_answers_for_a_replica_is_not_taken_for_it(
    trio: Trio, tmp_path: Path
) -> None:
    replica = trio.replicas[0]
    other = Server(tmp_path / "other")
    stranger = Server(tmp_path / "stranger", config=["replica-priority 0"], replica_of=other)
    with other, stranger:
        replica.command("CONFIG", "SET", "replica-announce-port", stranger.port)
        replica.command("REPLICAOF", "NO", "ONE")
        replica.command("REPLICAOF", "127.0.0.1", trio.primary.port)
        wait_until(lambda: count_online(trio.primary) == 2, "it to be online again")
        flusher = make_flusher(trio.where, trio.archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            expected = f"the server at 127.0.0.1:{stranger.port} does not replicate the primary"
            await poll_until(lambda: expected in flusher.not_ready_reason, "a refusal")


async def test_long_timeout_of_silent_replicas_is_logged(trio: Trio) -> None:
    trio.primary.client().config_set("repl-timeout", 60)
    with capture_logs() as logs:
        await seed_once(trio.where, trio.archive, tier="replicated")
    assert [line["seconds"] for line in logs if line["event"] == "replica_timeout_long"] == [60]
