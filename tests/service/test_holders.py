"""A primary that may lack acknowledged usages, and the operator who accepts it."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.holders import Holders, read_accepted, read_holders, write_holders
from busyapi.archive.writer import PartitionWriter
from busyapi.cli import main
from busyapi.errors import ArchiveFull, LeaseLost
from busyapi.flusher import replicas
from busyapi.flusher.accept_primary import PrimaryNotAccepted, accept_primary
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.ownership import PartitionConfig, acquire_lease
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.servers import RedisServers
from testkit.in_process import (
    make_flusher,
    open_archive,
    poll_until,
    run_committer,
    run_flusher,
    seed_once,
    wait_until_flushing,
)
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until


async def post_some(trio: Trio) -> None:
    """Store and archive some usages, so that all three servers hold them."""
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher), run_committer(trio.where, tier="replicated") as committer:
        assert await committer.post(b"{}", b"{}") == 2
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == 2, "the archive")
        await poll_until(lambda: len(trio.holders) == 3, "three holders")


async def accept(trio: Trio) -> None:
    """Accept the present primary, as an operator does."""
    await asyncio.to_thread(accept_primary, trio.where, trio.archive, 0, confirmed=True)


async def test_primary_that_restarts_empty_is_refused_until_an_operator_accepts_it(
    trio: Trio, capsys: pytest.CaptureFixture[str]
) -> None:
    await post_some(trio)
    trio.primary.kill9()
    trio.primary.wipe()
    trio.primary.start()
    wait_until(lambda: count_online(trio.primary) == 2, "two replicas to be emptied")
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher, ready=False):
        await poll_until(
            lambda: "it has no data of this partition" in flusher.not_ready_reason, "a refusal"
        )
        await asyncio.sleep(1)
        assert trio.primary.client().get("busyapi:{0}:seq") is None
        await accept(trio)
        address = f"127.0.0.1:{trio.primary.port}"
        assert f"{address}  primary  no data of this partition" in capsys.readouterr().out
        await wait_until_flushing(flusher)
        async with run_committer(trio.where, tier="replicated") as committer:
            assert await committer.post(b"{}") > 1000
        await poll_until(lambda: len(trio.holders) == 3, "three holders")
        await poll_until(lambda: not read_accepted(trio.archive / "p00"), "the end of it")


async def test_primary_that_restarts_with_its_volume_is_not_refused(trio: Trio) -> None:
    await post_some(trio)
    trio.primary.kill9()
    trio.primary.start()
    wait_until(lambda: count_online(trio.primary) == 2, "two replicas to be back")
    assert await seed_once(trio.where, trio.archive, tier="replicated") != "fresh install"


async def test_acceptance_is_for_one_process_only(trio: Trio) -> None:
    await post_some(trio)
    await accept(trio)
    trio.primary.kill9()
    trio.primary.wipe()
    trio.primary.start()
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher, ready=False):
        await poll_until(
            lambda: "it has no data of this partition" in flusher.not_ready_reason, "a refusal"
        )


async def test_operator_must_type_the_address(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    await seed_once(trio.where, trio.archive, tier="replicated")
    monkeypatch.setattr("sys.stdin.readline", lambda: "no\n")
    with pytest.raises(PrimaryNotAccepted):
        await asyncio.to_thread(accept_primary, trio.where, trio.archive, 0, confirmed=False)
    assert read_accepted(trio.archive / "p00") == ""


async def test_raised_server_that_is_gone_for_good_is_given_up_by_an_operator(trio: Trio) -> None:
    await post_some(trio)
    folder = trio.archive / "p00"
    known = read_holders(folder)
    gone = "127.0.0.1:1"
    write_holders(
        folder,
        known._replace(processes={**known.processes, gone: "gone"}, raised=frozenset({gone})),
    )
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher, ready=False):
        await poll_until(
            lambda: f"{gone} may still be promoted" in flusher.not_ready_reason, "a refusal"
        )
        assert "busyapi archive accept-primary" in flusher.not_ready_reason
        await accept(trio)
        await wait_until_flushing(flusher)
    assert read_holders(folder).raised == frozenset()
    assert gone not in read_holders(folder).processes


async def test_restored_copy_forgets_the_holders_of_its_time(trio: Trio, tmp_path: Path) -> None:
    await post_some(trio)
    former = "10.0.0.1:6379"
    write_holders(trio.archive / "p00", Holders({former: "other"}, frozenset({former})))
    copy = tmp_path / "copy"
    shutil.copytree(trio.archive, copy)
    assert await seed_once(trio.where, copy, tier="replicated") == "same history"
    addresses = {f"127.0.0.1:{server.port}" for server in (trio.primary, *trio.replicas)}
    assert read_holders(copy / "p00").addresses == addresses


async def test_holders_do_not_grow_without_the_lease(trio: Trio) -> None:
    await seed_once(trio.where, trio.archive, tier="replicated")
    writer = open_archive(trio.archive)
    servers = RedisServers(only=trio.where)
    partition = OwnedPartition(servers, 0, "replicated", writer.identity.archive_id)
    try:
        await partition.connect()
        await acquire_lease(partition, writer.identity, PartitionConfig(0, 1, 1000, "replicated"))
        record = HolderRecord(trio.archive / "p00")
        known = await record.read()
        trio.primary.client().set("busyapi:{0}:lease", "another:flusher")
        grown = known._replace(processes={**known.processes, "10.0.0.9:6379": "new"})
        with pytest.raises(LeaseLost):
            await record.add(grown, partition, writer)
        assert read_holders(trio.archive / "p00") == known
        fewer = known._replace(processes={})
        assert await record.add(fewer, partition, writer) == fewer
    finally:
        writer.close()
        await partition.close()


async def test_replica_reconnects_while_the_archive_is_full(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ArchiveFull("full")

    replica = trio.replicas[0]
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher), run_committer(trio.where, tier="replicated") as committer:
        assert await committer.post(b"{}") == 1
        await poll_until(lambda: len(trio.holders) == 3, "three holders")
        with monkeypatch.context() as patch:
            patch.setattr(PartitionWriter, "append", fail)
            assert await committer.post(b"{}") == 2
            await poll_until(lambda: "full" in flusher.not_ready_reason, "the archive to be full")
            replica.kill9()
            assert await committer.post(b"{}") == 3
            await poll_until(lambda: replica not in trio.holders, "the replica to leave")
            replica.start()
            await poll_until(lambda: replica in trio.holders, "the replica to be back")
            assert await committer.post(b"{}") == 4


async def test_user_that_may_not_wait_stores_nothing(trio: Trio) -> None:
    await seed_once(trio.where, trio.archive, tier="replicated")
    async with run_committer(trio.where, tier="replicated", deadline=2.0) as committer:
        await committer.wait_until_ready()
        trio.primary.command("ACL", "SETUSER", "default", "-wait")
        await poll_until(lambda: committer.committer.durability_error, "a refusal")
        assert "allow `+wait +waitaof`" in str(committer.committer.durability_error)
        trio.primary.command("ACL", "SETUSER", "default", "+wait")
        await committer.wait_until_ready()


async def test_replicas_that_never_become_holders_are_reported(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "MAX_UNCONFIRMED_SECONDS", 0.5)
    trio.primary.command("ACL", "SETUSER", "default", "-wait")
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_flusher(flusher, ready=False):
        expected = "the replicas do not confirm the record of the flusher: Redis refuses to wait"
        await poll_until(lambda: expected in flusher.not_ready_reason, "it to be reported")
        assert trio.holders == set()
        assert flusher._metrics.replicas_confirming._value.get() == 0
        trio.primary.command("ACL", "SETUSER", "default", "+wait")
        await wait_until_flushing(flusher)
        assert flusher._metrics.replicas_confirming._value.get() == 2


def test_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["archive", "accept-primary", "--help"])
    assert "  busyapi archive accept-primary" in capsys.readouterr().out
