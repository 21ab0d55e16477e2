"""Who has given out what: archive, Redis and committers must agree before a commit is taken."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.writer import PartitionWriter
from busyapi.commit.committer import RETRY_BACKOFF_SECONDS
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
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    flavour: Flavour = getattr(request, "param", "valkey")
    with Server(tmp_path / "server", flavour) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def jumped(flusher: Flusher) -> float:
    return float(flusher._metrics.epoch_jumps._value.get())


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_fresh_install_counts_from_one(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
        state = site.read_state()
        assert state["why"] == "fresh install"
        assert (state["partitions"], state["bound"], state["skipped"]) == ("1", str(BOUND), "0")
        run_id = site.server.client().info("server")["run_id"]
        assert state["run_id"].startswith(run_id)
        assert jumped(flusher) == 0
    assert site.read_archived_ids() == [1, 2, 3]
    assert site.read_gaps() == []


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_killed_server_goes_on_counting_where_it_was(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        epoch = site.read_state()["epoch"]
        site.server.kill9()
        site.server.start()
        assert await site.post(committer, "b", 2) == [4, 5]
        await site.wait_until_archived(5)
        assert site.read_state()["epoch"] == epoch
        assert jumped(flusher) == 0
    assert site.read_archived_ids() == [1, 2, 3, 4, 5]
    assert site.read_gaps() == []


async def test_restarted_flusher_goes_on_where_the_archive_ends(site: InProcessStack) -> None:
    async with site.run_committer() as committer:
        async with run_flusher(site.make_flusher()):
            assert await site.post(committer, "a", 3) == [1, 2, 3]
        assert await site.post(committer, "b", 2) == [4, 5]
        async with run_flusher(site.make_flusher()):
            await site.wait_until_archived(5)
    assert site.read_archived_ids() == [1, 2, 3, 4, 5]
    assert site.read_gaps() == []


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_wiped_server_is_refused_until_ids_have_jumped(site: InProcessStack) -> None:
    async with run_flusher(site.make_flusher()), site.run_committer() as committer:
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
    site.server.stop()
    site.server.wipe()
    site.server.start()
    async with site.run_committer() as committer:
        waits = committer.post(b'{"marker":"waits"}')
        await committer.wait_until_failed()
        assert not waits.done()
        assert site.read_seq() == 0
        async with run_flusher(site.make_flusher()) as flusher:
            assert await waits == 3 + BOUND + 2
            assert jumped(flusher) == 1
            state = site.read_state()
            assert state["why"] == "Redis has lost its data"
            # What the count of usages is made of.
            assert int(state["skipped"]) == BOUND + 1
            assert site.read_seq() - int(state["skipped"]) == 4
            await site.wait_until_archived(3 + BOUND + 2)
    assert site.read_gaps() == [(4, 3 + BOUND + 1)]
    assert site.read_archived_ids() == [1, 2, 3, 3 + BOUND + 2]


async def test_server_wiped_before_anything_was_archived_repeats_no_id(
    site: InProcessStack,
) -> None:
    async with site.run_committer() as committer:
        flusher = site.make_flusher()
        async with run_flusher(flusher):
            await committer.wait_until_ready()
        # Nobody archives: the archive's cursor stays 0 while ids are given out.
        assert await site.post(committer, "a", 3) == [1, 2, 3]
    site.server.stop()
    site.server.wipe()
    site.server.start()
    async with site.run() as (_, after):
        (again,) = await site.post(after, "b", 1)
        assert again == BOUND + 2


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_server_restored_from_below_the_cursor_jumps(site: InProcessStack) -> None:
    async with run_flusher(site.make_flusher()):
        async with site.run_committer() as committer:
            await site.post(committer, "a", 3)
            await site.wait_until_archived(3)
            copy = site.copy_data()
            await site.post(committer, "b", 3)
            await site.wait_until_archived(6)
        site.server.stop()
        site.restore_data(copy)
        site.server.start()
        # A committer that has seen nothing: only the archive knows better.
        async with site.run_committer() as committer:
            assert await site.post(committer, "c", 1) == [6 + BOUND + 2]
            assert site.read_state()["why"] == "Redis is older than the archive"
            await site.wait_until_archived(6 + BOUND + 2)
    assert site.read_archived_ids() == [1, 2, 3, 4, 5, 6, 6 + BOUND + 2]


async def test_server_older_than_what_a_committer_was_told_jumps(site: InProcessStack) -> None:
    async with site.run_committer() as committer:
        async with run_flusher(site.make_flusher()):
            await site.post(committer, "a", 3)
            await site.wait_until_archived(3)
        copy = site.copy_data()
        assert await site.post(committer, "b", 3) == [4, 5, 6]
        site.server.stop()
        site.restore_data(copy)
        site.server.start()
        # For the flusher's eyes this is the same server, restarted: 3 archived, 3 given out.
        async with run_flusher(site.make_flusher()):
            # It may have noticed by itself, and is then not ready yet; if not, it looks at the
            # new server when it has something to send.
            await committer.wait_until_ready()
            assert await site.post(committer, "c", 1) == [3 + BOUND + 2]
            assert site.read_state()["why"] == "a process saw that Redis went back"


async def test_restored_server_is_looked_at_by_every_committer_before_any_commits(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The committer must find out by sending that nobody is there, not by a recheck before.
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 3600.0)
    # Every committer has looked by then, if the machine lets it; here it has more time.
    assert max(RETRY_BACKOFF_SECONDS) < COMMITTER_CHECK_SECONDS
    monkeypatch.setattr("busyapi.flusher.seed.COMMITTER_CHECK_SECONDS", 4.0)
    async with site.run_committer() as knows:
        async with run_flusher(site.make_flusher()):
            await site.post(knows, "a", 3)
            await site.wait_until_archived(3)
        copy = site.copy_data()
        assert await site.post(knows, "b", 3) == [4, 5, 6]
        site.server.stop()
        uncertain = knows.post(b'"sent to nobody"')
        site.restore_data(copy)
        await poll_until(
            lambda: knows.committer._backoff == max(RETRY_BACKOFF_SECONDS),
            "it to look once a second",
        )
        site.server.start()
        # A new process looks at once, and would be given 4 again.
        async with (
            site.run_committer() as knows_nothing,
            run_flusher(site.make_flusher(), ready=False),
        ):
            assert await site.post(knows_nothing, "c", 1) == [3 + BOUND + 2]
            assert isinstance((await gather_results([uncertain]))[0], OutcomeUnknown)


async def test_nothing_is_committed_while_ids_jump(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.run_committer() as committer:
        async with run_flusher(site.make_flusher()):
            await site.post(committer, "a", 3)
            await site.wait_until_archived(3)
        # The server is the one the committer has checked, but the archive is further on.
        writer = open_archive(site.archive)
        writer.record_gap(Seq(10), "a test says so")
        writer.close()
        jumping, refused = threading.Event(), threading.Event()
        record = PartitionWriter.record_gap

        def slowly(writer: PartitionWriter, through: Seq, why: str) -> None:
            jumping.set()
            assert refused.wait(10)
            record(writer, through, why)

        monkeypatch.setattr(PartitionWriter, "record_gap", slowly)
        async with run_flusher(site.make_flusher(), ready=False):
            await poll_until(jumping.is_set, "the jump")
            waits = committer.post(b'{"marker":"b"}')
            await committer.wait_until_failed()
            assert not waits.done()
            refused.set()
            assert await waits == 10 + BOUND + 2
            await site.wait_until_archived(10 + BOUND + 2)
    assert site.read_archived_ids() == [1, 2, 3, 10 + BOUND + 2]


async def test_idle_flusher_notices_that_a_committer_took_the_epoch_away(
    site: InProcessStack,
) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
        site.server.command("HDEL", KEYS.state, "epoch")
        await poll_until(lambda: jumped(flusher), "the jump", seconds=5)
        assert await site.post(committer, "b", 1) == [3 + BOUND + 2]


async def test_counter_deleted_by_hand_is_noticed_and_jumped(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
        site.server.command("DEL", KEYS.seq)
        await poll_until(lambda: jumped(flusher), "the jump", seconds=5)
        assert await site.post(committer, "b", 1) == [3 + BOUND + 2]


async def test_counter_set_back_by_hand_gives_no_id_twice(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
        site.server.command("SET", KEYS.seq, 1)
        assert await site.post(committer, "b", 1) == [3 + BOUND + 2]
        assert jumped(flusher) == 1


async def test_data_deleted_by_hand_from_a_running_server_is_noticed(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        await site.wait_until_archived(3)
        site.server.command("FLUSHALL")
        assert await site.post(committer, "b", 1) == [3 + BOUND + 2]
        assert jumped(flusher) == 1


# --- servers that were something else for a while -------------------------------------------


async def test_server_demoted_and_promoted_again_jumps(
    site: InProcessStack, tmp_path: Path
) -> None:
    # It is the same process all the time, with the data of one that lacked the tail.
    link = Proxy(site.server.port)
    other = Server(tmp_path / "other", replica_of=site.server)
    with link, other:
        other.command("REPLICAOF", "127.0.0.1", link.port)
        wait_until(lambda: follows(other), "the other to follow through the proxy")
        async with site.run() as (_, committer):
            assert await site.post(committer, "a", 3) == [1, 2, 3]
            await site.wait_until_archived(3)
        wait_until(lambda: other.command("GET", KEYS.seq) == "3", "the other to have that")
        link.mute()
        async with site.run_committer() as before:
            assert await site.post(before, "b", 3) == [4, 5, 6]
            other.command("REPLICAOF", "NO", "ONE")
            site.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(lambda: follows(site.server) and site.read_seq() == 3, "the tail to be lost")
            site.server.command("REPLICAOF", "NO", "ONE")
            # This committer's connection is still the one it checked; a later one must be checked.
            async with site.run_committer() as after:
                waiting = [before.post(b"{}"), after.post(b"{}")]
                await asyncio.gather(before.wait_until_failed(), after.wait_until_failed())
                assert not any(each.done() for each in waiting)
                async with run_flusher(site.make_flusher()):
                    seqs = await asyncio.gather(*waiting)
                    assert sorted(seqs) == [3 + BOUND + 2, 3 + BOUND + 3]


async def test_committer_of_before_a_server_took_over_other_data_gives_no_id_of_the_lost_tail(
    site: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server is the committer's, its epoch too, and the committer was given nothing of what is
    # lost: only the commit itself can find out.
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 3600.0)
    link = Proxy(site.server.port)
    other = Server(tmp_path / "other", replica_of=site.server)
    with link, other:
        other.command("REPLICAOF", "127.0.0.1", link.port)
        wait_until(lambda: follows(other), "the other to follow through the proxy")
        async with run_flusher(site.make_flusher()), site.run_committer() as first:
            assert await site.post(first, "a", 3) == [1, 2, 3]
            await site.wait_until_archived(3)
        wait_until(lambda: other.command("GET", KEYS.seq) == "3", "the other to have that")
        async with site.run_committer() as idle, site.run_committer() as knows:
            await idle.wait_until_ready()
            await knows.wait_until_ready()
            link.mute()
            assert await site.post(knows, "b", 3) == [4, 5, 6]
            other.command("REPLICAOF", "NO", "ONE")
            site.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(lambda: follows(site.server) and site.read_seq() == 3, "the tail to be lost")
            site.server.command("REPLICAOF", "NO", "ONE")
            waiting = idle.post(b'"c"')
            await idle.wait_until_failed()
            assert not waiting.done()
            async with run_flusher(site.make_flusher()):
                assert await waiting == 3 + BOUND + 2


async def test_promotion_that_the_server_has_forgotten_jumps(
    site: InProcessStack, tmp_path: Path
) -> None:
    # Redis forgets whose data it took over (`master_replid2`) when its backlog's time is over.
    site.server.command("CONFIG", "SET", "repl-backlog-ttl", 1)
    link = Proxy(site.server.port)
    other = Server(tmp_path / "other")
    with link, other:
        async with site.run() as (_, committer):
            assert await site.post(committer, "a", 3) == [1, 2, 3]
            other.command("REPLICAOF", "127.0.0.1", link.port)
            await poll_until(lambda: site.read_state()["doubt"], "the replica to be noticed")
            assert await site.post(committer, "b", 3) == [4, 5, 6]
            await site.wait_until_archived(6)
        wait_until(lambda: other.command("GET", KEYS.seq) == "6", "the other to have that")
        link.mute()
        async with site.run_committer() as before:
            assert await site.post(before, "c", 3) == [7, 8, 9]
        other.command("REPLICAOF", "NO", "ONE")
        site.server.command("REPLICAOF", "127.0.0.1", other.port)
        wait_until(lambda: follows(site.server) and site.read_seq() == 6, "the tail to be lost")
        site.server.command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: forgot(site.server), "the backlog to be freed")
    async with site.run() as (flusher, after):
        assert await site.post(after, "d", 1) == [6 + BOUND + 2]
        assert jumped(flusher) == 1


def forgot(server: Server) -> bool:
    return not str(server.replication()["master_replid2"]).strip("0")


def follows(server: Server) -> bool:
    return server.replication().get("master_link_status") == "up"


async def test_first_replica_of_a_server_costs_no_ids(site: InProcessStack, tmp_path: Path) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        with Server(tmp_path / "other", replica_of=site.server):
            assert await site.post(committer, "b", 3) == [4, 5, 6]
            await poll_until(lambda: site.read_state()["doubt"], "the replica to be noticed")
        assert await site.post(committer, "c", 3) == [7, 8, 9]
        assert jumped(flusher) == 0
        # But which server comes back after a restart is no longer sure.
        site.server.kill9()
        site.server.start()
        (first,) = await site.post(committer, "d", 1)
        assert isinstance(first, OutcomeUnknown) or (isinstance(first, int) and first > 9 + BOUND)
        assert jumped(flusher) == 1
        assert "replicas" in site.read_state()["why"]


async def test_weak_server_is_archived_from_and_jumps_at_its_restart(site: InProcessStack) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        site.server.client().config_set("appendfsync", "everysec")
        assert await site.post(committer, "b", 3) == [4, 5, 6]
        await poll_until(lambda: "appendfsync" in flusher.not_ready_reason, "the flusher to notice")
        await site.wait_until_archived(6)
        # So weak a server may keep what it was told to itself for a while: the doubt too.
        client = site.server.client()
        await poll_until(
            lambda: client.info("persistence")["aof_buffer_length"] == 0, "the server to write it"
        )
        site.server.kill9()
        site.server.start()  # with `always` again, as its file says
        await wait_until_flushing(flusher)
        assert jumped(flusher) == 1
        assert "weaker" in site.read_state()["why"]
    assert site.read_archived_ids() == [1, 2, 3, 4, 5, 6]


async def test_volume_of_another_installation_halts_though_it_is_further_on(
    site: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.flusher.loop.HALT_RETRY_SECONDS", 0.2)
    async with site.run():
        pass
    async with site.run_committer() as committer:
        assert await site.post(committer, "a", 3) == [1, 2, 3]
        writer = open_archive(tmp_path / "another")
        writer.record_gap(Seq(500), "usages of another installation")
        writer.close()
        site.server.command("DEL", KEYS.lease)
        async with run_flusher(
            make_flusher(endpoint_of(site.server), tmp_path / "another"), ready=False
        ) as (wrong):
            await poll_until(lambda: "--replaces" in wrong.not_ready_reason, "the flusher to halt")
            assert len(site.read_entry_ids()) == len(set(site.read_entry_ids())) > 0
            assert await site.post(committer, "b", 1) == [4]
        site.server.command("DEL", KEYS.lease)
        async with run_flusher(site.make_flusher()):
            await site.wait_until_archived(4)
    assert site.read_archived_ids() == [1, 2, 3, 4]


async def test_data_that_a_server_takes_over_while_it_is_drained_is_archived(
    site: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other one has usages that this server lacks, and no flusher has archived.
    with Server(tmp_path / "other", replica_of=site.server) as other:
        async with site.run_committer() as committer:
            async with run_flusher(site.make_flusher()):
                assert await site.post(committer, "a", 3) == [1, 2, 3]
                await site.wait_until_archived(3)
            assert await site.post(committer, "b", 3) == [4, 5, 6]
            wait_until(lambda: other.command("GET", KEYS.seq) == "6", "the other to have that")
        other.command("REPLICAOF", "NO", "ONE")
        site.server.command("DEL", KEYS.stream)
        site.server.command("SET", KEYS.seq, 3)
        site.server.command("HDEL", KEYS.state, "epoch")

        async def once(*args: Any) -> None:
            monkeypatch.setattr("busyapi.flusher.seed.drain_stream", drain_stream)
            await drain_stream(*args)
            site.server.command("REPLICAOF", "127.0.0.1", other.port)
            wait_until(lambda: follows(site.server) and site.read_seq() == 6, "the other's data")
            site.server.command("REPLICAOF", "NO", "ONE")

        monkeypatch.setattr("busyapi.flusher.seed.drain_stream", once)
        async with site.run() as (_, committer):
            (new,) = await site.post(committer, "c", 1)
            assert isinstance(new, int)
            await site.wait_until_archived(new)
    assert site.read_archived_ids() == [1, 2, 3, 4, 5, 6, new]
