"""Seeding: archive, Redis and committers must agree on issued ids before a commit is accepted."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.writer import PartitionWriter
from busyapi.commit.backoff import MAX_FIRST_SECONDS, MAX_SECONDS
from busyapi.errors import OutcomeUnknown
from busyapi.flusher.buffer import drain_stream
from busyapi.flusher.loop import Flusher
from busyapi.flusher.seed import COMMITTER_CHECK_SECONDS
from busyapi.ids import Seq
from testkit.in_process import (
    endpoint_of,
    gather_results,
    make_flusher,
    open_archive,
    poll_until,
    run_flusher,
    wait_until_flushing,
)
from testkit.in_process_stack import BOUND, KEYS, InProcessStack
from testkit.proxy import Proxy
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.waiting import wait_until


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    flavour: Flavour = getattr(request, "param", "valkey")
    with Server(tmp_path / "server", flavour) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def count_jumps(flusher: Flusher) -> float:
    return float(flusher._metrics.epoch_jumps._value.get())


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_fresh_install_counts_from_one(stack: InProcessStack) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        state = stack.read_state()
        assert state["why"] == "fresh install"
        assert (state["partitions"], state["bound"], state["skipped"]) == ("1", str(BOUND), "0")
        run_id = stack.server.client().info("server")["run_id"]
        assert state["run_id"].startswith(run_id)
        assert count_jumps(flusher) == 0
    assert stack.read_archived_ids() == [1, 2, 3]
    assert stack.read_gaps() == []


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_killed_server_continues_its_count(stack: InProcessStack) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        epoch = stack.read_state()["epoch"]
        stack.server.kill9()
        stack.server.start()
        assert await stack.post(committer, "b", 2) == [4, 5]
        await stack.wait_until_archived(5)
        assert stack.read_state()["epoch"] == epoch
        assert count_jumps(flusher) == 0
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5]
    assert stack.read_gaps() == []


async def test_restarted_flusher_continues_where_the_archive_ends(stack: InProcessStack) -> None:
    async with stack.run_committer() as committer:
        async with run_flusher(stack.make_flusher()):
            assert await stack.post(committer, "a", 3) == [1, 2, 3]
        assert await stack.post(committer, "b", 2) == [4, 5]
        async with run_flusher(stack.make_flusher()):
            await stack.wait_until_archived(5)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5]
    assert stack.read_gaps() == []


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_wiped_server_is_refused_until_ids_have_jumped(stack: InProcessStack) -> None:
    async with run_flusher(stack.make_flusher()), stack.run_committer() as committer:
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
    stack.server.stop()
    stack.server.wipe()
    stack.server.start()
    async with stack.run_committer() as committer:
        waiting = committer.post(b'{"marker":"waits"}')
        await committer.wait_until_failed()
        assert not waiting.done()
        assert stack.read_seq() == 0
        async with run_flusher(stack.make_flusher()) as flusher:
            assert await waiting == 3 + BOUND + 2
            assert count_jumps(flusher) == 1
            state = stack.read_state()
            assert state["why"] == "Redis has lost its data"
            # The count of usages is computed from these.
            assert int(state["skipped"]) == BOUND + 1
            assert stack.read_seq() - int(state["skipped"]) == 4
            await stack.wait_until_archived(3 + BOUND + 2)
    assert stack.read_gaps() == [(4, 3 + BOUND + 1)]
    assert stack.read_archived_ids() == [1, 2, 3, 3 + BOUND + 2]


async def test_server_wiped_before_anything_was_archived_repeats_no_id(
    stack: InProcessStack,
) -> None:
    async with stack.run_committer() as committer:
        flusher = stack.make_flusher()
        async with run_flusher(flusher):
            await committer.wait_until_ready()
        # Without a flusher the archive's cursor stays 0 while ids are issued.
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
    stack.server.stop()
    stack.server.wipe()
    stack.server.start()
    async with stack.run() as (_, after):
        (again,) = await stack.post(after, "b", 1)
        assert again == BOUND + 2


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_server_restored_from_below_the_cursor_jumps(stack: InProcessStack) -> None:
    async with run_flusher(stack.make_flusher()):
        async with stack.run_committer() as committer:
            await stack.post(committer, "a", 3)
            await stack.wait_until_archived(3)
            copy = stack.copy_data()
            await stack.post(committer, "b", 3)
            await stack.wait_until_archived(6)
        stack.server.stop()
        stack.restore_data(copy)
        stack.server.start()
        # A committer that has seen nothing: only the archive knows better.
        async with stack.run_committer() as committer:
            assert await stack.post(committer, "c", 1) == [6 + BOUND + 2]
            assert stack.read_state()["why"] == "Redis is older than the archive"
            await stack.wait_until_archived(6 + BOUND + 2)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6, 6 + BOUND + 2]


async def test_server_older_than_what_a_committer_has_received_jumps(stack: InProcessStack) -> None:
    async with stack.run_committer() as committer:
        async with run_flusher(stack.make_flusher()):
            await stack.post(committer, "a", 3)
            await stack.wait_until_archived(3)
        copy = stack.copy_data()
        assert await stack.post(committer, "b", 3) == [4, 5, 6]
        stack.server.stop()
        stack.restore_data(copy)
        stack.server.start()
        # To the flusher this is the same server, restarted: 3 archived, 3 issued.
        async with run_flusher(stack.make_flusher()):
            # If the committer has noticed, it is not ready yet. If not, it checks the new
            # server when it sends the next usage.
            await committer.wait_until_ready()
            assert await stack.post(committer, "c", 1) == [3 + BOUND + 2]
            assert stack.read_state()["why"] == "a process saw that Redis went back"


async def test_restored_server_is_checked_by_every_committer_before_any_commits(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The committer must notice the stopped server when it sends, not in an earlier recheck.
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 3600.0)
    # On an idle machine every committer has checked by then; here it gets more time.
    assert MAX_FIRST_SECONDS < MAX_SECONDS < COMMITTER_CHECK_SECONDS
    monkeypatch.setattr("busyapi.flusher.seed.COMMITTER_CHECK_SECONDS", 4.0)
    monkeypatch.setattr("busyapi.commit.connection_state.FAILOVER_SECONDS", 0.0)
    async with stack.run_committer() as informed:
        async with run_flusher(stack.make_flusher()):
            await stack.post(informed, "a", 3)
            await stack.wait_until_archived(3)
        copy = stack.copy_data()
        assert await stack.post(informed, "b", 3) == [4, 5, 6]
        stack.server.stop()
        uncertain = informed.post(b'"sent to a stopped server"')
        stack.restore_data(copy)
        await poll_until(
            lambda: informed.committer._backoff._seconds == MAX_SECONDS,
            "it to retry once a second",
        )
        stack.server.start()
        # A new process checks at once, and would get id 4 again.
        async with (
            stack.run_committer() as uninformed,
            run_flusher(stack.make_flusher(), ready=False),
        ):
            assert await stack.post(uninformed, "c", 1) == [3 + BOUND + 2]
            assert isinstance((await gather_results([uncertain]))[0], OutcomeUnknown)


async def test_nothing_is_committed_while_ids_jump(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack.run_committer() as committer:
        async with run_flusher(stack.make_flusher()):
            await stack.post(committer, "a", 3)
            await stack.wait_until_archived(3)
        # The committer has checked this server, but the archive is ahead of it.
        writer = open_archive(stack.archive)
        writer.record_gap(Seq(10), "a test says so")
        writer.close()
        jumping, refused = threading.Event(), threading.Event()
        record = PartitionWriter.record_gap

        def record_slowly(writer: PartitionWriter, through: Seq, why: str) -> None:
            jumping.set()
            assert refused.wait(10)
            record(writer, through, why)

        monkeypatch.setattr(PartitionWriter, "record_gap", record_slowly)
        async with run_flusher(stack.make_flusher(), ready=False):
            await poll_until(jumping.is_set, "the jump")
            waiting = committer.post(b'{"marker":"b"}')
            await committer.wait_until_failed()
            assert not waiting.done()
            refused.set()
            assert await waiting == 10 + BOUND + 2
            await stack.wait_until_archived(10 + BOUND + 2)
    assert stack.read_archived_ids() == [1, 2, 3, 10 + BOUND + 2]


async def test_idle_flusher_notices_that_a_committer_revoked_the_epoch(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        stack.server.command("HDEL", KEYS.state, "epoch")
        await poll_until(lambda: count_jumps(flusher), "the jump", seconds=5)
        assert await stack.post(committer, "b", 1) == [3 + BOUND + 2]


async def test_counter_deleted_by_hand_is_noticed_and_jumped(stack: InProcessStack) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        stack.server.command("DEL", KEYS.seq)
        await poll_until(lambda: count_jumps(flusher), "the jump", seconds=5)
        assert await stack.post(committer, "b", 1) == [3 + BOUND + 2]


async def test_counter_set_back_by_hand_gives_no_id_twice(stack: InProcessStack) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        stack.server.command("SET", KEYS.seq, 1)
        assert await stack.post(committer, "b", 1) == [3 + BOUND + 2]
        assert count_jumps(flusher) == 1


async def test_data_deleted_by_hand_from_a_running_server_is_noticed(stack: InProcessStack) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        stack.server.command("FLUSHALL")
        assert await stack.post(committer, "b", 1) == [3 + BOUND + 2]
        assert count_jumps(flusher) == 1


# --- servers that changed their role or data -------------------------------------------


async def test_server_demoted_and_promoted_again_jumps(
    stack: InProcessStack, tmp_path: Path
) -> None:
    # The process stays the same, but its data comes from a server without the tail.
    link = Proxy(stack.server.port)
    other = Server(tmp_path / "other", replica_of=stack.server)
    with link, other:
        other.command("REPLICAOF", "127.0.0.1", link.port)
        wait_until(lambda: is_in_sync(other), "the other to follow through the proxy")
        async with stack.run() as (_, committer):
            assert await stack.post(committer, "a", 3) == [1, 2, 3]
            await stack.wait_until_archived(3)
        wait_until(lambda: other.command("GET", KEYS.seq) == "3", "the other to have that")
        link.mute()
        async with stack.run_committer() as before:
            assert await stack.post(before, "b", 3) == [4, 5, 6]
            other.command("REPLICAOF", "NO", "ONE")
            stack.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(
                lambda: is_in_sync(stack.server) and stack.read_seq() == 3, "the tail to be lost"
            )
            stack.server.command("REPLICAOF", "NO", "ONE")
            # One committer still has the connection that it checked; the other checks a new one.
            async with stack.run_committer() as after:
                waiting = [before.post(b"{}"), after.post(b"{}")]
                await asyncio.gather(before.wait_until_failed(), after.wait_until_failed())
                assert not any(future.done() for future in waiting)
                async with run_flusher(stack.make_flusher()):
                    seqs = await asyncio.gather(*waiting)
                    assert sorted(seqs) == [3 + BOUND + 2, 3 + BOUND + 3]


async def test_committer_connected_before_its_server_lost_the_tail_issues_no_id_of_the_tail(
    stack: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Server and epoch are those of the committer, and it has received nothing of what is lost:
    # only the commit itself can detect it.
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 3600.0)
    link = Proxy(stack.server.port)
    other = Server(tmp_path / "other", replica_of=stack.server)
    with link, other:
        other.command("REPLICAOF", "127.0.0.1", link.port)
        wait_until(lambda: is_in_sync(other), "the other to follow through the proxy")
        async with run_flusher(stack.make_flusher()), stack.run_committer() as first:
            assert await stack.post(first, "a", 3) == [1, 2, 3]
            await stack.wait_until_archived(3)
        wait_until(lambda: other.command("GET", KEYS.seq) == "3", "the other to have that")
        async with stack.run_committer() as idle, stack.run_committer() as informed:
            await idle.wait_until_ready()
            await informed.wait_until_ready()
            link.mute()
            assert await stack.post(informed, "b", 3) == [4, 5, 6]
            other.command("REPLICAOF", "NO", "ONE")
            stack.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(
                lambda: is_in_sync(stack.server) and stack.read_seq() == 3, "the tail to be lost"
            )
            stack.server.command("REPLICAOF", "NO", "ONE")
            waiting = idle.post(b'"c"')
            await idle.wait_until_failed()
            assert not waiting.done()
            async with run_flusher(stack.make_flusher()):
                assert await waiting == 3 + BOUND + 2


async def test_promotion_that_the_server_has_forgotten_jumps(
    stack: InProcessStack, tmp_path: Path
) -> None:
    # Redis drops the id of its former primary (`master_replid2`) when its backlog expires.
    stack.server.command("CONFIG", "SET", "repl-backlog-ttl", 1)
    link = Proxy(stack.server.port)
    other = Server(tmp_path / "other")
    with link, other:
        async with stack.run() as (_, committer):
            assert await stack.post(committer, "a", 3) == [1, 2, 3]
            other.command("REPLICAOF", "127.0.0.1", link.port)
            await poll_until(lambda: stack.read_state()["doubt"], "the replica to be noticed")
            assert await stack.post(committer, "b", 3) == [4, 5, 6]
            await stack.wait_until_archived(6)
        wait_until(lambda: other.command("GET", KEYS.seq) == "6", "the other to have that")
        link.mute()
        async with stack.run_committer() as before:
            assert await stack.post(before, "c", 3) == [7, 8, 9]
        other.command("REPLICAOF", "NO", "ONE")
        stack.server.command("REPLICAOF", "127.0.0.1", other.port)
        wait_until(
            lambda: is_in_sync(stack.server) and stack.read_seq() == 6, "the tail to be lost"
        )
        stack.server.command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: has_dropped_replid2(stack.server), "the backlog to be freed")
    async with stack.run() as (flusher, after):
        assert await stack.post(after, "d", 1) == [6 + BOUND + 2]
        assert count_jumps(flusher) == 1


def has_dropped_replid2(server: Server) -> bool:
    return not str(server.replication()["master_replid2"]).strip("0")


def is_in_sync(server: Server) -> bool:
    return server.replication().get("master_link_status") == "up"


async def test_first_replica_of_a_server_costs_no_ids(
    stack: InProcessStack, tmp_path: Path
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        with Server(tmp_path / "other", replica_of=stack.server):
            assert await stack.post(committer, "b", 3) == [4, 5, 6]
            await poll_until(lambda: stack.read_state()["doubt"], "the replica to be noticed")
        assert await stack.post(committer, "c", 3) == [7, 8, 9]
        assert count_jumps(flusher) == 0
        # But after a restart it is no longer certain which server comes back.
        stack.server.kill9()
        stack.server.start()
        (first,) = await stack.post(committer, "d", 1)
        assert isinstance(first, OutcomeUnknown) or (isinstance(first, int) and first > 9 + BOUND)
        assert count_jumps(flusher) == 1
        assert "replicas" in stack.read_state()["why"]


async def test_server_below_its_tier_is_archived_from_and_jumps_at_its_restart(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        stack.server.client().config_set("appendfsync", "everysec")
        assert await stack.post(committer, "b", 3) == [4, 5, 6]
        await poll_until(lambda: "appendfsync" in flusher.not_ready_reason, "the flusher to notice")
        await stack.wait_until_archived(6)
        # A server below its tier may delay the write of what it received, the doubt included.
        client = stack.server.client()
        await poll_until(
            lambda: client.info("persistence")["aof_buffer_length"] == 0, "the server to write it"
        )
        stack.server.kill9()
        stack.server.start()  # with `always` again, as its file says
        await wait_until_flushing(flusher)
        assert count_jumps(flusher) == 1
        assert "did not meet its durability tier" in stack.read_state()["why"]
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]


async def test_volume_of_another_installation_halts_although_it_is_ahead(
    stack: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    async with stack.run():
        pass
    async with stack.run_committer() as committer:
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        writer = open_archive(tmp_path / "another")
        writer.record_gap(Seq(500), "usages of another installation")
        writer.close()
        stack.server.command("DEL", KEYS.lease)
        async with run_flusher(
            make_flusher(endpoint_of(stack.server), tmp_path / "another"), ready=False
        ) as flusher:
            await poll_until(
                lambda: "--replaces" in flusher.not_ready_reason, "the flusher to halt"
            )
            assert len(stack.read_entry_ids()) == len(set(stack.read_entry_ids())) > 0
            assert await stack.post(committer, "b", 1) == [4]
        stack.server.command("DEL", KEYS.lease)
        async with run_flusher(stack.make_flusher()):
            await stack.wait_until_archived(4)
    assert stack.read_archived_ids() == [1, 2, 3, 4]


async def test_data_that_a_server_takes_over_while_it_is_drained_is_archived(
    stack: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other server has usages that this one lacks and that no flusher has archived.
    with Server(tmp_path / "other", replica_of=stack.server) as other:
        async with stack.run_committer() as committer:
            async with run_flusher(stack.make_flusher()):
                assert await stack.post(committer, "a", 3) == [1, 2, 3]
                await stack.wait_until_archived(3)
            assert await stack.post(committer, "b", 3) == [4, 5, 6]
            wait_until(lambda: other.command("GET", KEYS.seq) == "6", "the other to have that")
        other.command("REPLICAOF", "NO", "ONE")
        stack.server.command("DEL", KEYS.stream)
        stack.server.command("SET", KEYS.seq, 3)
        stack.server.command("HDEL", KEYS.state, "epoch")

        async def drain_and_take_over(*args: Any) -> None:
            monkeypatch.setattr("busyapi.flusher.seed.drain_stream", drain_stream)
            await drain_stream(*args)
            stack.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(
                lambda: is_in_sync(stack.server) and stack.read_seq() == 6, "the other's data"
            )
            stack.server.command("REPLICAOF", "NO", "ONE")

        monkeypatch.setattr("busyapi.flusher.seed.drain_stream", drain_and_take_over)
        async with stack.run() as (_, committer):
            (new,) = await stack.post(committer, "c", 1)
            assert isinstance(new, int)
            await stack.wait_until_archived(new)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6, new]
