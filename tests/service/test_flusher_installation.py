"""Two installations on one Redis: each has its own keys, and neither uses the other's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    run_committer,
    run_flusher,
    wait_until_flushing,
)
from testkit.in_process_stack import InProcessStack
from testkit.servers import Server

KEYS = PartitionKeys(0)


@pytest.fixture
def stack(tmp_path: Path, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


async def test_two_installations_with_different_prefixes_share_a_redis(
    stack: InProcessStack, tmp_path: Path
) -> None:
    other = replace(endpoint_of(stack.server), prefix="busyapi:other", installation="ns/other")
    async with (
        stack.run() as (_, committer),
        run_flusher(make_flusher(other, tmp_path / "other")),
        run_committer(other) as second,
    ):
        await second.wait_until_ready()
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        assert await stack.post(second, "b", 2) == [1, 2]
        state = PartitionKeys(0, "busyapi:other").state
        await poll_until(lambda: stack.server.command("HGET", state, "archived") == "2", "both")
        await stack.wait_until_archived(3)
        assert stack.server.command("HGET", state, "installation") == "ns/other"
    names = stack.server.command("KEYS", "*")
    assert all(name.startswith(("busyapi:{0}:", "busyapi:other:{0}:")) for name in names)


async def test_archive_that_was_seeded_under_another_prefix_halts_and_names_it(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
    other = replace(endpoint_of(stack.server), prefix="busyapi-new")
    async with run_flusher(make_flusher(other, stack.archive), ready=False) as wrong:
        await poll_until(
            lambda: "BUSYAPI_KEY_PREFIX says busyapi-new" in wrong.not_ready_reason, "it to halt"
        )
        assert "set it to busyapi." in wrong.not_ready_reason
        assert not stack.server.command("KEYS", "busyapi-new*")
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "b", 1) == [4]
        await stack.wait_until_archived(4)
    assert stack.read_gaps() == []


async def test_archive_of_an_earlier_version_keeps_its_prefix(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 1) == [1]
        await stack.wait_until_archived(1)
    identity = stack.archive / "p00" / "partition.json"
    members = json.loads(identity.read_text())
    of_0_2_0 = {name: members[name] for name in members if name not in {"prefix", "home", "crc"}}
    identity.write_text(json.dumps(of_0_2_0))
    other = replace(endpoint_of(stack.server), prefix="busyapi-new")
    async with run_flusher(make_flusher(other, stack.archive), ready=False) as wrong:
        await poll_until(lambda: "set it to busyapi." in wrong.not_ready_reason, "it to halt")
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "b", 1) == [2]


async def test_committer_of_another_installation_stores_nothing_and_reports_the_reason(
    stack: InProcessStack,
) -> None:
    own = replace(endpoint_of(stack.server), installation="one/busyapi")
    other = replace(endpoint_of(stack.server), installation="two/busyapi")
    async with (
        run_flusher(make_flusher(own, stack.archive)) as flusher,
        run_committer(own) as right,
    ):
        await right.wait_until_ready()
        async with run_committer(other, deadline=0.5) as wrong:
            posted = wrong.post(b"{}")
            await poll_until(lambda: "two/busyapi" in str(wrong.committer.last_error), "the reason")
            assert "installation 'one/busyapi'" in str(wrong.committer.last_error)
            await poll_until(posted.done, "the deadline")
            assert posted.exception()
        assert await stack.post(right, "a", 1) == [1]
        await wait_until_flushing(flusher)
    # The flusher of the same archive renames the installation in Redis.
    async with run_flusher(make_flusher(other, stack.archive)), run_committer(other) as renamed:
        await renamed.wait_until_ready()
        assert await stack.post(renamed, "b", 1) == [2]
        assert stack.read_state()["installation"] == "two/busyapi"
