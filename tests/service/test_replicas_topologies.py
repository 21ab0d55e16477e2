"""The tier `replicated` with Sentinels and several partitions, and on a cluster."""

import asyncio
import shlex
from pathlib import Path

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from busyapi.archive.holders import Holders, read_holders, write_holders
from busyapi.stream.cluster import list_replicas
from busyapi.stream.sentinel import SentinelPrimary
from busyapi.stream.sentinel_failover import start_failover
from busyapi.stream.sentinel_view import read_view
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    run_flusher,
    seed_once,
    wait_until_flushing,
)
from testkit.load import Load
from testkit.processes import Stack
from testkit.replicated import CONFIG, SETTINGS, return_to
from testkit.servers import FLAVOURS, Flavour
from testkit.topologies import ClusterOfThree, SentinelSet
from testkit.waiting import wait_until


async def test_primary_that_is_no_holder_is_not_seeded(tmp_path: Path) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        await seed_once(where, archive, tier="replicated")
        write_holders(archive / "p00", Holders({"10.0.0.1:6379": "another process"}))
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            await poll_until(
                lambda: "may lack acknowledged usages" in flusher.not_ready_reason, "it to refuse"
            )
            assert "it is not one of the servers that confirmed them" in flusher.not_ready_reason
            assert "had all of them: 10.0.0.1:6379" in flusher.not_ready_reason
            assert "busyapi archive accept-primary --partition 0" in flusher.not_ready_reason


async def test_failover_that_cannot_start_is_reported_with_its_reason(tmp_path: Path) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        primary, replica = sentinels.servers
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher):
            replica.kill9()
            primary.kill9()
            expected = f"no failover: 127.0.0.1:{replica.port} cannot be inspected"
            with capture_logs() as logs:
                await poll_until(
                    lambda: "failover_blocked" in {line["event"] for line in logs}, "it", seconds=20
                )
            assert expected in flusher.not_ready_reason
            replica.spawn()
            await poll_until(lambda: sentinels.primary() is replica, "a failover", seconds=30)
            await asyncio.to_thread(return_to, primary, replica)
            await wait_until_flushing(flusher, 60)
        # The Sentinel wrote the raised priority there.
        assert "replica-priority 0\n" in (replica.folder / "server.conf").read_text()


async def test_right_that_a_failover_needs_is_missed_while_all_is_well(tmp_path: Path) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        replica = sentinels.servers[1]
        replica.command("ACL", "SETUSER", "default", "-config|set")
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            expected = f"set `replica-priority 0` on 127.0.0.1:{replica.port}: the flusher may not"
            await poll_until(lambda: expected in flusher.not_ready_reason, "a refusal")
            replica.command("ACL", "SETUSER", "default", "+config|set")
            await wait_until_flushing(flusher)


async def test_priority_that_cannot_be_written_to_the_configuration_is_refused(
    tmp_path: Path,
) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        replica = sentinels.servers[1]
        path = replica.folder / "server.conf"
        path.unlink()
        path.mkdir()  # it can be read as an empty file, and not be replaced
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            expected = (
                f"write `replica-priority 0` to the configuration file of 127.0.0.1:{replica.port}"
            )
            await poll_until(lambda: expected in flusher.not_ready_reason, "a refusal")
            path.rmdir()
            await wait_until_flushing(flusher)
        assert "replica-priority 0\n" in path.read_text()


async def test_configuration_that_can_never_be_written_is_logged(tmp_path: Path) -> None:
    sentinels = SentinelSet(tmp_path / "sentinels", config=CONFIG)
    replica = sentinels.servers[1]
    lines = (replica.folder / "server.conf").read_text().splitlines()
    words = [word for line in lines for word in shlex.split(f"--{line}")]
    replica.argv = [replica.argv[0], *words]
    with sentinels, capture_logs() as logs:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        async with run_flusher(make_flusher(where, archive, tier="replicated")):
            await poll_until(
                lambda: "priority_not_saved" in {line["event"] for line in logs}, "it to be logged"
            )
    named = {line["server"] for line in logs if line["event"] == "priority_not_saved"}
    assert named == {f"127.0.0.1:{replica.port}"}


async def test_next_sentinel_is_asked_for_a_failover_if_the_first_refuses(tmp_path: Path) -> None:
    with SentinelSet(tmp_path / "sentinels") as sentinels:
        where = endpoint_of(sentinels)
        first, second, third = sentinels.sentinels
        addresses = tuple(("127.0.0.1", part.port) for part in (first, second, third))
        down = SentinelPrimary("not asked for", addresses, 3.0)
        for sentinel in (first, third):
            sentinel.client.acl_setuser("default", commands=["-sentinel|failover"])
        old, other = sentinels.servers
        assert await start_failover(where, down) == ""
        await poll_until(lambda: sentinels.primary() is other, "a failover", seconds=20)
        second.client.acl_setuser("default", commands=["-sentinel|failover"])
        reasons = await start_failover(where, down)
        assert reasons.count("refuses the user") == len(addresses)
        assert sentinels.primary() is not old


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_commits_are_refused_while_a_sentinel_promotes_a_server_chosen_before(
    tmp_path: Path, flavour: Flavour
) -> None:
    with SentinelSet(tmp_path / "sentinels", flavour, config=CONFIG, replicas=2) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        chosen = sentinels.servers[1]
        sentinel = sentinels.sentinels[0].client
        sentinel.sentinel_set(sentinels.service, "failover-timeout", 30_000)
        # It obeys no Sentinel yet, so the failover does not end.
        chosen.command("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
        chosen.client().config_set("replica-priority", 1)
        await poll_until(lambda: begin_failover(sentinels), "a failover", seconds=20)
        chosen.client().config_set("replica-priority", 0)
        while (view := await read_view(where)) and view.promotable:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            expected = "a Sentinel is promoting another server"
            await poll_until(lambda: expected in flusher.not_ready_reason, "a refusal")
            sentinel.sentinel_set(sentinels.service, "failover-timeout", 1000)
            await wait_until_flushing(flusher, 30)


def begin_failover(sentinels: SentinelSet) -> bool:
    """Make the first Sentinel start a failover; return whether it does."""
    try:
        sentinels.sentinels[0].client.sentinel_failover(sentinels.service)
    except ResponseError:  # it does not know the priority yet
        return False
    return True


async def test_replica_that_sentinels_know_by_another_address_does_not_confirm(
    tmp_path: Path,
) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        primary, replica = sentinels.servers
        replica.command("CONFIG", "SET", "replica-announce-ip", "localhost")
        replica.command("REPLICAOF", "NO", "ONE")
        replica.command("REPLICAOF", "127.0.0.1", primary.port)
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher, ready=False):
            expected = f"the primary lists localhost:{replica.port}, and the Sentinels list"
            await poll_until(lambda: expected in flusher.not_ready_reason, "a refusal")
        assert f"localhost:{replica.port}" not in read_holders(archive / "p00").addresses


@pytest.mark.faults
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_all_partitions_of_a_server_follow_one_decision(tmp_path: Path, flavour: Flavour) -> None:
    with (
        SentinelSet(tmp_path / "s", flavour, config=CONFIG, replicas=2) as sentinels,
        Stack(tmp_path / "stack", sentinels, partitions=2, settings=SETTINGS) as stack,
    ):
        with Load(stack.port, connections=8) as load:
            wait_until(lambda: load.history.acknowledged > 50, "usages")
            old = sentinels.primary()
            old.kill9()
            new = sentinels.wait_for_failover(old)
            return_to(old, new)
            for process in stack.processes:
                process.wait_until_ready(60)
            before = load.history.acknowledged
            wait_until(lambda: load.history.acknowledged > before + 50, "usages", seconds=30)
        stack.wait_until_archived(30)
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(load.history)
        assert verdict.ok, verdict
        assert not verdict.skipped


@pytest.mark.faults
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_replica_that_a_cluster_knows_must_confirm(tmp_path: Path, flavour: Flavour) -> None:
    settings = SETTINGS | {"BUSYAPI_REPLICAS": "1", "BUSYAPI_COMMIT_DEADLINE": "1"}
    with (
        ClusterOfThree(tmp_path / "c", flavour, config=CONFIG[1:], replicas=True) as cluster,
        Stack(tmp_path / "stack", cluster, settings=settings) as stack,
    ):
        with Load(stack.port, connections=4) as load:
            wait_until(lambda: load.history.acknowledged > 50, "usages")
            primary = cluster.primary_of("busyapi:{0}:state")
            replica = cluster.replicas[cluster.primaries.index(primary)]
            replica.kill9()
            (flusher,) = stack.flushers
            wait_until(lambda: not flusher.is_ready(), "the flusher to refuse", seconds=20)
            before = load.history.acknowledged
            wait_until(lambda: refused(load) > 20, "refusals")
            assert load.history.acknowledged == before
            assert "the cluster may promote" in flusher.log.read_text()
            replica.start()
            wait_until(lambda: load.history.acknowledged > before, "usages", seconds=30)

            primary.kill9()
            primary.wipe()
            wait_until(lambda: replica.replication()["role"] == "master", "a failover", seconds=30)
            primary.start()
            before = load.history.acknowledged
            wait_until(lambda: load.history.acknowledged > before + 20, "usages", seconds=60)
        stack.wait_until_archived(30)
        assert set(stack.stop().values()) == {0}
        verdict = stack.check_history(load.history)
        assert verdict.ok, verdict


def refused(load: Load) -> int:
    """Return how many requests were not acknowledged."""
    return len(load.history.requests) - load.history.acknowledged


async def test_replica_that_only_other_primaries_know_is_listed(tmp_path: Path) -> None:
    with ClusterOfThree(tmp_path / "c", config=CONFIG[1:], replicas=True) as cluster:
        where = endpoint_of(cluster)
        primary = cluster.primary_of("busyapi:{0}:state")
        replica = cluster.replicas[cluster.primaries.index(primary)]
        primary.command("CLUSTER", "FORGET", replica.command("CLUSTER", "MYID"))
        assert str(replica.port) not in str(primary.command("CLUSTER", "NODES"))
        connection = await where.connect(0)
        try:
            assert await list_replicas(where, connection) == {f"127.0.0.1:{replica.port}"}
        finally:
            await connection.close()
