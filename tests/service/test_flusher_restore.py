"""An archive restored from a backup, with and without the Redis that has the last id."""

import json
import shutil
from pathlib import Path

import pytest

from testkit.in_process import run_flusher, wait_until_flushing, wait_until_halted
from testkit.in_process_stack import BOUND, InProcessStack
from testkit.servers import Server


@pytest.fixture
def stack(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


def back_up(stack: InProcessStack) -> Path:
    """Copy the archive while its flusher runs."""
    backup = stack.archive.with_name("backup")
    shutil.copytree(stack.archive, backup, ignore=shutil.ignore_patterns(".lock", ".reserve"))
    return backup


def restore(stack: InProcessStack, backup: Path) -> None:
    shutil.rmtree(stack.archive)
    shutil.copytree(backup, stack.archive)


def lose_redis(stack: InProcessStack) -> None:
    stack.server.stop()
    stack.server.wipe()
    stack.server.start()


async def issue_ids(stack: InProcessStack) -> Path:
    """Issue ids 1 to 6; return a backup that has ids 1 to 3."""
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        backup = back_up(stack)
        await stack.post(committer, "b", 3)
        await stack.wait_until_archived(6)
    return backup


async def test_restored_archive_and_lost_redis_give_no_id_twice(stack: InProcessStack) -> None:
    backup = await issue_ids(stack)
    restore(stack, backup)
    lose_redis(stack)
    async with (
        run_flusher(stack.make_flusher(), ready=False) as flusher,
        stack.run_committer() as committer,
    ):
        reason = await wait_until_halted(flusher)
        assert "is a copy" in reason
        assert not committer.committer.is_ready
        words = reason[reason.index("busyapi archive confirm-restore") :].split()[2:]
        # Id 2 is wrong: the backup itself has id 3.
        assert stack.run_command(*words[:-1], "2", "--yes") == 1
        assert flusher.not_ready_reason
        # The operator knows from elsewhere that id 6 was issued.
        assert stack.run_command(*words[:-1], "6", "--yes") == 0
        await wait_until_flushing(flusher)
        assert await stack.post(committer, "c", 1) == [6 + BOUND + 2]
        await stack.wait_until_archived(6 + BOUND + 2)
    assert stack.read_archived_ids() == [1, 2, 3, 6 + BOUND + 2]
    assert stack.read_gaps() == [(4, 6), (7, 6 + BOUND + 1)]
    # The next start needs no command.
    async with stack.run():
        pass


async def test_copy_of_a_0_2_0_archive_is_not_detected(stack: InProcessStack) -> None:
    """This is the control, and the operations guide documents it for backups made before 0.3.0."""
    backup = await issue_ids(stack)
    path = backup / "p00" / "partition.json"
    members = json.loads(path.read_text())
    for name in ("home", "prefix", "crc"):
        del members[name]
    path.write_text(json.dumps(members))
    restore(stack, backup)
    lose_redis(stack)
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "c", 1) == [3 + BOUND + 2]


async def test_moved_archive_continues_with_the_server_that_knows_it(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    restore(stack, back_up(stack))
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "b", 1) == [4]
    # It counts as an original again: after a lost Redis no operator is needed.
    lose_redis(stack)
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "c", 1) == [4 + BOUND + 2]


async def test_restored_archive_and_restarted_redis_need_one_command(stack: InProcessStack) -> None:
    backup = await issue_ids(stack)
    restore(stack, backup)
    stack.server.stop()
    stack.server.start()
    async with (
        run_flusher(stack.make_flusher(), ready=False) as flusher,
        stack.run_committer() as committer,
    ):
        reason = await wait_until_halted(flusher)
        assert "is a copy" in reason
        assert "at least that of seq 6" in reason
        words = ["--partition", "0", "--last-id", "6", "--yes"]
        assert stack.run_command("confirm-restore", *words) == 0
        await wait_until_flushing(flusher)
        await committer.wait_until_ready()
        assert await stack.post(committer, "c", 1) == [7]
        await stack.wait_until_archived(7)
    assert stack.read_archived_ids() == [1, 2, 3, 7]


async def test_restored_archive_whose_loss_was_accepted_is_an_original(
    stack: InProcessStack,
) -> None:
    backup = await issue_ids(stack)
    restore(stack, backup)
    async with (
        run_flusher(stack.make_flusher(), ready=False) as flusher,
        stack.run_committer() as committer,
    ):
        reason = await wait_until_halted(flusher)
        assert "up to seq 6 were archived" in reason
        assert stack.accept_loss(6) == 0
        await wait_until_flushing(flusher)
        assert await stack.post(committer, "c", 1) == [7]
        await stack.wait_until_archived(7)
    assert stack.read_archived_ids() == [1, 2, 3, 7]


async def test_original_archive_and_lost_redis_jump_without_an_operator(
    stack: InProcessStack,
) -> None:
    await issue_ids(stack)
    lose_redis(stack)
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "c", 1) == [6 + BOUND + 2]
