"""A primary that restarts on an older volume, and a holder that has copied its data."""

import asyncio
import shutil
from pathlib import Path

import pytest

from busyapi.errors import DurabilityNotMet
from busyapi.flusher.accept_primary import accept_primary
from busyapi.flusher.seed import WITHOUT_JUMP
from testkit.archive_reader import read_archive
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    run_committer,
    run_flusher,
    seed_once,
)
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until

SEQ = "busyapi:{0}:seq"
LEASE = "busyapi:{0}:lease"


async def lose_acknowledged(trio: Trio, older: Path, *, are_archived: bool) -> None:
    """Acknowledge usages that no server has afterwards; only usage 1 stays.

    The primary restarts on an older volume, and its replica, which confirmed them, copies that one.
    Then the replica is promoted.
    """
    old, (new, last) = trio.primary, trio.replicas
    last.command("REPLICAOF", "127.0.0.1", new.port)
    wait_until(lambda: count_online(new) == 1, "the last one to follow")
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_committer(trio.where, tier="replicated") as committer:
        async with run_flusher(flusher):
            assert await committer.post(b"{}") == 1
            await poll_until(lambda: len(trio.holders) == 2, "both")
            await poll_until(lambda: flusher.writer and flusher.writer.cursor == 1, "the archive")
            shutil.copytree(old.folder, older)
            if are_archived:
                assert await committer.post(b"{}") == 2
                await poll_until(lambda: flusher.writer and flusher.writer.cursor == 2, "it")
        assert await committer.post(b"{}") == (3 if are_archived else 2)
    old.kill9()
    shutil.rmtree(old.folder)
    shutil.copytree(older, old.folder)
    old.start()
    wait_until(lambda: count_online(old) == 1, "the replica to follow", seconds=20)
    wait_until(lambda: new.replication()["master_link_status"] == "up", "it to copy the data")
    assert new.client().get(SEQ) == "1"
    new.command("REPLICAOF", "NO", "ONE")
    old.kill9()
    wait_until(lambda: count_online(new) == 1, "the last one to be back", seconds=20)
    new.client().delete(LEASE)  # of the flusher that was on the old one


async def test_ids_jump_past_usages_that_a_holder_has_lost(trio: Trio, tmp_path: Path) -> None:
    await lose_acknowledged(trio, tmp_path / "older", are_archived=False)
    where = endpoint_of(trio.replicas[0])
    assert await seed_once(where, trio.archive, tier="replicated") not in WITHOUT_JUMP
    async with run_committer(where, tier="replicated") as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}") > 1000
    assert len(read_archive(trio.archive).partition(0).gaps) == 1


async def test_holder_that_has_lost_archived_usages_is_refused(trio: Trio, tmp_path: Path) -> None:
    await lose_acknowledged(trio, tmp_path / "older", are_archived=True)
    where = endpoint_of(trio.replicas[0])
    with pytest.raises(DurabilityNotMet, match="a server that began another history"):
        await seed_once(where, trio.archive, tier="replicated")
    await asyncio.to_thread(accept_primary, where, trio.archive, 0, confirmed=True)
    assert await seed_once(where, trio.archive, tier="replicated") not in WITHOUT_JUMP
