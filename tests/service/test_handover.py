"""A primary that asks to be replaced, and is by a server that holds everything."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from busyapi.archive.holders import read_holders
from busyapi.cli import main
from busyapi.errors import RedisUnavailable
from busyapi.flusher.handover import Handover
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_store import ReplicaStore
from busyapi.stream.sentinel_failover import Start
from testkit.in_process import (
    CommitterHarness,
    endpoint_of,
    make_flusher,
    poll_until,
    run_committer,
    run_flusher,
    wait_until_flushing,
)
from testkit.replicated import CONFIG
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.topologies import SentinelSet
from testkit.waiting import wait_until

KEY, REPLICAS = "busyapi:{0}:handover", "busyapi:{0}:replicas"


@pytest.fixture
def sentinels(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelSet]:
    """Three servers and three Sentinels, of the flavour that the test has as parameter."""
    flavour: Flavour = getattr(request, "param", "valkey")
    with SentinelSet(tmp_path / "s", flavour, config=CONFIG, replicas=2) as running:
        yield running


@asynccontextmanager
async def run_stack(where: Endpoint, archive: Path) -> AsyncIterator[CommitterHarness]:
    """Run a flusher and a committer until the end of the `with`."""
    flusher = make_flusher(where, archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(where, tier="replicated") as committer,
    ):
        await poll_until(lambda: len(read_holders(archive / "p00").processes) == 3, "holders")
        yield committer
        await wait_until_flushing(flusher)


def request(server: Server) -> None:
    """Ask for a hand-over, as the server does."""
    server.client().set(KEY, f"127.0.0.1:{server.port}", ex=60)


def read_role(server: Server) -> str:
    """Return a server's role, "" if a Sentinel closes the connection."""
    try:
        return str(server.replication()["role"])
    except redis.RedisError:
        return ""


def describe_priority(server: Server) -> tuple[str | None, bool]:
    """Return the priority in memory, and whether that in the file is 0."""
    memory = server.client().config_get("replica-priority")["replica-priority"]
    file = (server.folder / "server.conf").read_text()
    return memory, "replica-priority 0\n" in file and "replica-priority 1\n" not in file


@pytest.mark.parametrize("sentinels", FLAVOURS, indirect=True)
async def test_primary_is_replaced_while_posts_continue(
    sentinels: SentinelSet, tmp_path: Path
) -> None:
    archive, old = tmp_path / "archive", sentinels.servers[0]
    async with run_stack(endpoint_of(sentinels), archive) as committer:
        last = await committer.post(b"{}")
        request(old)
        role = "master"
        while role == "master":  # up to ten seconds until a Sentinel has read the priority
            assert await committer.post(b"{}") == last + 1
            last += 1
            role = (await asyncio.to_thread(read_role, old)) or role
        last += 1
        assert await committer.post(b"{}") == last
        new = await asyncio.to_thread(sentinels.wait_for_failover, old)
        await poll_until(lambda: len(read_holders(archive / "p00").processes) == 3, "holders")
        assert new.client().get("busyapi:{0}:seq") == str(last)
        assert read_holders(archive / "p00").raised == frozenset()
        assert {describe_priority(server) for server in sentinels.servers} == {("0", True)}
        await poll_until(lambda: not new.client().exists(KEY), "the request to be deleted")


async def test_request_is_refused_once_and_left_while_no_replica_holds_everything(
    sentinels: SentinelSet, tmp_path: Path
) -> None:
    old, *replicas = sentinels.servers
    async with run_stack(endpoint_of(sentinels), tmp_path / "archive") as committer:
        with capture_logs() as logs:
            for replica in replicas:
                replica.kill9()
            await poll_until(lambda: not committer.committer.is_ready, "a refusal")
            request(old)
            await asyncio.sleep(3)
        refused = [line for line in logs if line["event"] == "handover_refused"]
        assert [line["primary"] for line in refused] == [f"127.0.0.1:{old.port}"]
        assert "BUSYAPI_MIN_REPLICAS is 1" in refused[0]["detail"]
        assert old.client().get(KEY)
        for replica in replicas:
            replica.spawn()
        await asyncio.to_thread(sentinels.wait_for_failover, old)  # the request is still valid
        await committer.wait_until_ready(20)


async def test_request_of_another_server_is_deleted(sentinels: SentinelSet, tmp_path: Path) -> None:
    old = sentinels.servers[0]
    async with run_stack(endpoint_of(sentinels), tmp_path / "archive"):
        with capture_logs() as logs:
            old.client().set(KEY, "10.0.0.1:6379", ex=60)
            await poll_until(lambda: not old.client().exists(KEY), "the request to be deleted")
        assert "handover_started" not in {line["event"] for line in logs}
        (refused,) = [line for line in logs if line["event"] == "handover_refused"]
        assert refused["detail"] == f"the primary is 127.0.0.1:{old.port}"


async def test_priority_is_0_again_after_a_request_that_was_withdrawn(
    sentinels: SentinelSet, tmp_path: Path
) -> None:
    archive, old = tmp_path / "archive", sentinels.servers[0]
    async with run_stack(endpoint_of(sentinels), archive):
        request(old)
        await poll_until(lambda: read_holders(archive / "p00").raised, "a choice")
        old.client().delete(KEY)
        await poll_until(
            lambda: {describe_priority(server)[0] for server in sentinels.servers} == {"0"},
            "every priority to be 0",
        )


async def test_command_waits_for_the_new_primary(
    sentinels: SentinelSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = sentinels.servers[0]
    for name, value in sentinels.settings().items():
        monkeypatch.setenv(name, value)
    assert main(["hand-over"]) == 2
    assert "hand-over needs BUSYAPI_DURABILITY=replicated" in capsys.readouterr().err
    monkeypatch.setenv("BUSYAPI_DURABILITY", "replicated")
    async with run_stack(endpoint_of(sentinels), tmp_path / "archive"):
        assert await asyncio.to_thread(main, ["hand-over"]) == 0
        new = await asyncio.to_thread(sentinels.wait_for_failover, old)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if not line.startswith("20")]  # the log
    assert lines[0] == f"asked the flusher of partition 0 to replace 127.0.0.1:{old.port}"
    assert lines[-1] == f"127.0.0.1:{new.port} is the primary"


def allows_commits(servers: list[Server]) -> bool:
    """Return whether one of the servers is a primary on which the flusher allows commits."""
    try:
        records = [
            (str(s.client().info()["run_id"]), str(s.client().get(REPLICAS))) for s in servers
        ]
    except redis.RedisError:
        return False  # a Sentinel closes the connections
    return any(f'"{run_id}-' in record and '"refusal": ""' in record for run_id, record in records)


def kill_leader(sentinels: SentinelSet) -> None:
    """Kill the Sentinel that executes a failover, once the new primary is promoted."""

    def find_promoted() -> bool:
        return any(read_role(server) == "master" for server in sentinels.servers[1:])

    wait_until(find_promoted, "a promotion", seconds=20)
    for sentinel in sentinels.sentinels:
        if "failover_in_progress" in str(sentinel.client.sentinel_master(sentinels.service)):
            sentinel.kill9()
            return
    pytest.fail("no Sentinel executes the failover")


async def test_posts_continue_if_the_sentinel_is_lost_that_promoted_the_other_server(
    sentinels: SentinelSet, tmp_path: Path
) -> None:
    archive, old = tmp_path / "archive", sentinels.servers[0]
    async with run_stack(endpoint_of(sentinels), archive) as committer:
        assert await committer.post(b"{}") == 1
        for sentinel in sentinels.sentinels[1:]:  # the others read priorities at another time
            sentinel.kill9()
            sentinel.spawn()
        await asyncio.sleep(4)
        request(old)
        await asyncio.to_thread(kill_leader, sentinels)
        await poll_until(lambda: read_role(old) == "slave", "the former primary to follow")
        await poll_until(
            lambda: allows_commits(sentinels.servers[1:]), "commits to be allowed", seconds=15
        )
        await committer.wait_until_ready()
        assert await committer.post(b"{}") == 2
        await poll_until(
            lambda: {describe_priority(server)[0] for server in sentinels.servers} == {"0"},
            "every priority to be 0",
        )


async def test_failover_is_forced_again_if_the_target_was_not_connected(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "primary", config=CONFIG) as primary,
        Server(tmp_path / "replica", config=CONFIG, replica_of=primary) as replica,
    ):
        where = endpoint_of(primary)
        connection = await where.connect(0)
        store = ReplicaStore(where, where.key_names(0), "", lambda: connection)
        handover = Handover(where, lambda *_: asyncio.sleep(0))
        handover.chosen = f"127.0.0.1:{replica.port}"
        replica.pause()
        primary.client().set("a", "b")
        primary.command("FAILOVER", "TO", "127.0.0.1", replica.port, "TIMEOUT", 60_000)
        primary.command("CLIENT", "KILL", "TYPE", "replica")
        switch = asyncio.create_task(handover.wait_for_switch(store, Start(is_coordinated=True)))
        await poll_until(
            lambda: primary.replication()["master_failover_state"] == "no-failover", "a refusal"
        )
        replica.resume()
        with pytest.raises(RedisUnavailable, match="the primary has been replaced"):
            await switch
        await connection.close()
        await poll_until(lambda: read_role(replica) == "master", "the promotion")
        assert (read_role(primary), read_role(replica)) == ("slave", "master")
