"""An archive restored from a backup, with and without the Redis that has the last id."""

import json
import shutil
from pathlib import Path

import pytest

from busyapi import cli
from busyapi.flusher.loop import Flusher
from testkit.in_process import poll_until, run_flusher, wait_until_flushing
from testkit.in_process_stack import BOUND, InProcessStack
from testkit.servers import Server


@pytest.fixture
def site(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    monkeypatch.setattr("busyapi.flusher.loop.HALT_RETRY_SECONDS", 0.2)
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


def back_up(site: InProcessStack) -> Path:
    """Copy the archive while its flusher runs."""
    backup = site.archive.with_name("backup")
    shutil.copytree(site.archive, backup, ignore=shutil.ignore_patterns(".lock", ".reserve"))
    return backup


def restore(site: InProcessStack, backup: Path) -> None:
    shutil.rmtree(site.archive)
    shutil.copytree(backup, site.archive)


def lose_redis(site: InProcessStack) -> None:
    site.server.stop()
    site.server.wipe()
    site.server.start()


async def until_halted(flusher: Flusher) -> str:
    await poll_until(flusher._metrics.halted._value.get, "the flusher to halt")
    return flusher.not_ready_reason


async def issue_ids(site: InProcessStack) -> Path:
    """Issue ids 1 to 6; return a backup that has ids 1 to 3."""
    async with site.run() as (_, committer):
        await site.post(committer, "a", 3)
        await site.wait_until_archived(3)
        backup = back_up(site)
        await site.post(committer, "b", 3)
        await site.wait_until_archived(6)
    return backup


async def test_restored_archive_and_lost_redis_give_no_id_twice(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await issue_ids(site)
    restore(site, backup)
    lose_redis(site)
    async with (
        run_flusher(site.make_flusher(), ready=False) as flusher,
        site.run_committer() as committer,
    ):
        reason = await until_halted(flusher)
        assert "is a copy" in reason
        assert not committer.committer.is_ready
        words = reason[reason.index("busyapi archive restored") :].split()[1:]
        monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(site.archive))
        # Id 2 is wrong: the backup itself has id 3.
        assert cli.main([*words[:-1], "2", "--yes"]) == 1
        assert flusher.not_ready_reason
        # The operator knows from elsewhere that id 6 was issued.
        assert cli.main([*words[:-1], "6", "--yes"]) == 0
        await wait_until_flushing(flusher)
        assert await site.post(committer, "c", 1) == [6 + BOUND + 2]
        await site.wait_until_archived(6 + BOUND + 2)
    assert site.read_archived_ids() == [1, 2, 3, 6 + BOUND + 2]
    assert site.read_gaps() == [(4, 6), (7, 6 + BOUND + 1)]
    # The next start needs no command.
    async with site.run():
        pass


async def test_copy_of_a_0_2_0_archive_is_not_detected(site: InProcessStack) -> None:
    """This is the control, and the operations guide documents it for backups made before 0.3.0."""
    backup = await issue_ids(site)
    path = backup / "p00" / "partition.json"
    members = json.loads(path.read_text())
    for name in ("home", "prefix", "crc"):
        del members[name]
    path.write_text(json.dumps(members))
    restore(site, backup)
    lose_redis(site)
    async with site.run() as (_, committer):
        assert await site.post(committer, "c", 1) == [3 + BOUND + 2]


async def test_moved_archive_continues_with_the_server_that_knows_it(site: InProcessStack) -> None:
    async with site.run() as (_, committer):
        await site.post(committer, "a", 3)
        await site.wait_until_archived(3)
    restore(site, back_up(site))
    async with site.run() as (_, committer):
        assert await site.post(committer, "b", 1) == [4]
    # It counts as an original again: after a lost Redis no operator is needed.
    lose_redis(site)
    async with site.run() as (_, committer):
        assert await site.post(committer, "c", 1) == [4 + BOUND + 2]


async def test_restored_archive_and_restarted_redis_need_one_command(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await issue_ids(site)
    restore(site, backup)
    site.server.stop()
    site.server.start()
    async with (
        run_flusher(site.make_flusher(), ready=False) as flusher,
        site.run_committer() as committer,
    ):
        reason = await until_halted(flusher)
        assert "is a copy" in reason
        assert "at least that of seq 6" in reason
        monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(site.archive))
        words = ["--partition", "0", "--last-id", "6", "--yes"]
        assert cli.main(["archive", "restored", *words]) == 0
        await wait_until_flushing(flusher)
        await committer.wait_until_ready()
        assert await site.post(committer, "c", 1) == [7]
        await site.wait_until_archived(7)
    assert site.read_archived_ids() == [1, 2, 3, 7]


async def test_restored_archive_whose_loss_was_accepted_is_an_original(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await issue_ids(site)
    restore(site, backup)
    async with (
        run_flusher(site.make_flusher(), ready=False) as flusher,
        site.run_committer() as committer,
    ):
        reason = await until_halted(flusher)
        assert "up to seq 6 were archived" in reason
        monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(site.archive))
        arguments = ["--partition", "0", "--through", "6", "--reason", "a test", "--yes"]
        assert cli.main(["archive", "accept-loss", *arguments]) == 0
        await wait_until_flushing(flusher)
        assert await site.post(committer, "c", 1) == [7]
        await site.wait_until_archived(7)
    assert site.read_archived_ids() == [1, 2, 3, 7]


async def test_original_archive_and_lost_redis_jump_without_an_operator(
    site: InProcessStack,
) -> None:
    await issue_ids(site)
    lose_redis(site)
    async with site.run() as (_, committer):
        assert await site.post(committer, "c", 1) == [6 + BOUND + 2]
