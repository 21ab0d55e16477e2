"""Two flushers of one archive without a working lock: the lease and the open segment protect it."""

import asyncio
import fcntl
from pathlib import Path

import pytest

from busyapi.stream.entry import MAX_VERSION
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.partition import OwnedPartition
from testkit.archive.builder import find_open_segments
from testkit.archive_reader import read_archive
from testkit.history import Outcome
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    record_calls,
    run_flusher,
    wait_until_flushing,
)
from testkit.in_process_stack import InProcessStack
from testkit.load import Load
from testkit.ports import reserve_port
from testkit.processes import Flusher, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

KEYS = PartitionKeys(0)


@pytest.fixture
def stack(tmp_path: Path, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grant every process the lock, as NFS without a lock daemon does (`nolock`)."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


@pytest.mark.usefixtures("no_flock")
async def test_second_flusher_without_flock_waits_and_changes_nothing(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (first, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        (segment,) = find_open_segments(stack.archive)
        async with run_flusher(stack.make_flusher(), ready=False) as second:
            await poll_until(lambda: "lease" in second.not_ready_reason, "the second to wait")
            for n in range(5):
                await stack.post(committer, f"b{n}", 2)
                await asyncio.sleep(0.7)
            await stack.wait_until_archived(13)
            assert "lease" in second.not_ready_reason
            assert second.writer is None
            assert not first.not_ready_reason
            assert segment.exists(), "a process recovered the segment of the first"
        assert not first.not_ready_reason
    assert stack.read_archived_ids() == list(range(1, 14))


@pytest.mark.usefixtures("no_flock")
async def test_second_flusher_without_flock_takes_over_when_the_first_stops(
    stack: InProcessStack,
) -> None:
    async with (
        stack.run_committer() as committer,
        run_flusher(stack.make_flusher(), ready=False) as second,
    ):
        await wait_until_flushing(second)
        async with run_flusher(stack.make_flusher(), ready=False) as third:
            await committer.wait_until_ready()
            await stack.post(committer, "a", 3)
            await poll_until(lambda: "lease" in third.not_ready_reason, "the third to wait")
            second.stop()
            await wait_until_flushing(third)
            await stack.post(committer, "b", 3)
            await stack.wait_until_archived(6)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]


async def test_owner_that_sees_another_token_of_its_archive_starts_over(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (first, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        (segment,) = find_open_segments(stack.archive)
        archive_id = stack.read_state()["archive_id"]
        before = segment.stat().st_ino
        stack.server.command("SET", KEYS.lease, f"{archive_id}:another", "PX", 10_000)
        await stack.post(committer, "b", 3)
        await poll_until(lambda: first.not_ready_reason, "the first to notice")
        # It does not finish the segment, which the other one may be writing.
        assert segment.stat().st_ino == before
        assert first.writer is None
        await wait_until_flushing(first)
        assert stack.server.command("GET", KEYS.lease) != f"{archive_id}:another"
        await stack.wait_until_archived(6)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]


async def test_flusher_whose_open_segment_was_removed_publishes_nothing_of_it(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (first, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        (segment,) = find_open_segments(stack.archive)
        segment.unlink()  # as a recovery by another process does after it has copied the file
        await stack.post(committer, "b", 3)
        await poll_until(lambda: first.not_ready_reason, "the first to notice")
        assert stack.read_state()["archived"] == "3"
        assert len(stack.read_entry_ids()) > 0


def make_second_flusher(stack: Stack, folder: Path) -> Flusher:
    settings = {
        name: value
        for name, value in stack.flushers[0].environment.items()
        if name.startswith("BUSYAPI_")
    }
    return Flusher(folder, 0, reserve_port(), settings)


@pytest.mark.parametrize("resumed_before_the_end", [True, False])
def test_suspended_owner_without_its_lock_loses_and_repeats_nothing(
    valkey: Server, stacks: Stacks, tmp_path: Path, *, resumed_before_the_end: bool
) -> None:
    stack = stacks(valkey)
    (first,) = stack.flushers
    second = make_second_flusher(stack, tmp_path / "second")
    try:
        with Load(stack.port, connections=4) as load:
            wait_until(lambda: load.history.acknowledged > 200, "usages")
            first.pause()
            (stack.archive / "p00" / ".lock").unlink()
            second.spawn()
            second.wait_until_ready()
            goal = load.history.acknowledged + 200
            wait_until(lambda: load.history.acknowledged > goal, "more usages")
            if resumed_before_the_end:
                first.resume()
                goal = load.history.acknowledged + 500
                wait_until(lambda: load.history.acknowledged > goal, "usages with both")
                wait_until(lambda: not first.is_ready(), "the first to see that it was replaced")
            history = load.stop()
        stack.wait_until_archived()
        if not resumed_before_the_end:
            first.resume()
            wait_until(lambda: not first.is_ready(), "the first to see that it was replaced")
        assert second.is_ready()
        assert second.stop() == 0
        wait_until(first.is_ready, "the first, now that the second has ended")
        assert first.stop() == 0
    finally:
        second.close()
    assert history.usages[Outcome.UNKNOWN] == 0
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert read_archive(stack.archive).partition(0).gaps == []


# --- a failed flusher keeps nothing ------------------------------------------------


async def test_halted_flusher_keeps_no_lease_and_takes_none(
    stack: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    assert stack.server.command("EXISTS", KEYS.lease) == 0, "a clean stop did not release it"
    leases: list[int] = []

    def has_retried() -> bool:
        leases.append(int(stack.server.command("EXISTS", KEYS.lease)))
        return len(tries) >= 3

    elsewhere = make_flusher(endpoint_of(stack.server), tmp_path / "other")
    async with run_flusher(elsewhere, ready=False) as wrong:
        await poll_until(
            lambda: "was seeded from archive" in wrong.not_ready_reason, "the wrong one to halt"
        )
        tries = record_calls(monkeypatch, OwnedPartition, "connect")
        await poll_until(has_retried, "the wrong one to try again and again")
        async with stack.run() as (right, committer):
            assert await stack.post(committer, "b", 1) == [4]
            await stack.wait_until_archived(4)
            assert not right.not_ready_reason
    assert not any(leases)


async def test_flusher_that_halts_with_the_lease_releases_it(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (flusher, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        unknown = MAX_VERSION + 1
        stack.server.client().xadd(KEYS.stream, {"u": b"%d of another version" % unknown}, id="4-1")
        stack.server.command("INCRBY", KEYS.seq, 1)
        await poll_until(
            lambda: f"has version {unknown}" in flusher.not_ready_reason, "the flusher to halt"
        )
        await poll_until(
            lambda: not stack.server.command("EXISTS", KEYS.lease), "the lease to be free"
        )
