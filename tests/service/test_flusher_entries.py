"""Entries of another version, that begin below the cursor, or on a server below its tier."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi.ids import Seq
from busyapi.stream.entry import encode_entry
from busyapi.stream.keys import PartitionKeys
from testkit.archive_reader import read_archive
from testkit.http1 import fetch
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    run_flusher,
    wait_until_flushing,
)
from testkit.in_process_stack import BOUND, InProcessStack
from testkit.servers import FLAVOURS, Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

KEYS = PartitionKeys(0)


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    with Server(tmp_path / "server", getattr(request, "param", "valkey")) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def store(server: Server, value: bytes, usages: int = 1, field: str = "u") -> int:
    """Store an entry as the commit script does; return its last seq."""
    last = int(server.command("GET", KEYS.seq) or 0) + usages
    server.client().xadd(KEYS.stream, {field: value}, id=f"{last}-{usages}")
    server.command("INCRBY", KEYS.seq, usages)
    return last


def quarantined(stack: InProcessStack) -> list[tuple[int, int]]:
    return [entry[:2] for entry in read_archive(stack.archive).partition(0).quarantined]


# --- entries of another version ------------------------------------------------------------------


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_entry_of_another_version_halts_and_waits_for_that_version(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 2) == [1, 2]
        newer = encode_entry([b'{"n":3}', b'{"n":4}'], 1).replace(b"1", b"7", 1)
        assert store(stack.server, newer, 2) == 4
        assert await stack.post(committer, "b", 1) == [5]
        await poll_until(
            lambda: "seqs 3 to 4 has version 7" in flusher.not_ready_reason, "the flusher to halt"
        )
        # The entries before it are archived; it and the entries after it stay in the stream.
        await stack.wait_until_archived(2)
        assert flusher._metrics.halted._value.get() == 1
        assert stack.read_entry_ids() == ["4-2", "5-1"]
        # Devices notice nothing until the bound is reached.
        assert await stack.post(committer, "c", 1) == [6]
        assert quarantined(stack) == []
        # The version that wrote it takes over.
        monkeypatch.setattr("busyapi.stream.entry.READABLE_VERSIONS", (b"7",))
        await poll_until(
            lambda: "seqs 5 to 5 has version 1" in flusher.not_ready_reason, "the next entry"
        )
        await stack.wait_until_archived(4)
        monkeypatch.setattr("busyapi.stream.entry.READABLE_VERSIONS", (b"1", b"2"))
        await wait_until_flushing(flusher)
        await stack.wait_until_archived(6)
        assert flusher._metrics.halted._value.get() == 0
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]
    assert stack.read_gaps() == []


async def test_entry_with_a_field_of_another_version_halts_and_is_not_trimmed(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 1) == [1]
        store(stack.server, encode_entry([b"{}"], 1), field="v2")
        await poll_until(
            lambda: "has an unknown field" in flusher.not_ready_reason, "the flusher to halt"
        )
        assert stack.read_entry_ids()[-1] == "2-1"
        assert quarantined(stack) == []


async def test_entry_of_another_version_stops_a_jump_before_anything_is_skipped(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 1) == [1]
        await stack.wait_until_archived(1)
    store(stack.server, b"3 newer\n{}")
    stack.server.command("HDEL", KEYS.state, "epoch")
    async with run_flusher(stack.make_flusher(), ready=False) as flusher:
        await poll_until(lambda: "has version 3" in flusher.not_ready_reason, "the flusher to halt")
        assert stack.read_entry_ids() == ["2-1"]
        assert "epoch" not in stack.read_state()
    assert stack.read_gaps() == []


async def test_broken_entry_of_a_known_version_is_still_set_aside(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 1) == [1]
        store(stack.server, b"1 1 00000000\n{}")
        assert await stack.post(committer, "b", 1) == [3]
        await stack.wait_until_archived(3)
    assert quarantined(stack) == [(2, 2)]
    assert stack.read_archived_ids() == [1, 3]


def test_lookup_of_an_entry_of_another_version_is_503(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    last = store(valkey, b"3 newer\n{}")
    answer = fetch(stack.port, f"/api/usages/{last}")
    assert answer.status == 503
    assert "a format that this version cannot read" in answer.json()["detail"]
    (flusher,) = stack.flushers
    wait_until(
        lambda: b"has version 3" in fetch(flusher.port, "/readyz").body, "the flusher to halt"
    )
    assert fetch(stack.port, f"/api/usages/{last}").status == 503
    stack.close()


# --- a cursor within an entry ---------------------------------------------------------------


async def test_rest_of_an_entry_is_archived_when_the_loss_of_its_start_is_accepted(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 1) == [1]
        await stack.wait_until_archived(1)
    store(stack.server, encode_entry([b'{"n":%d}' % n for n in range(2, 12)], 1), 10)
    assert stack.accept_loss(5) == 0
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "b", 1) == [12]
        await stack.wait_until_archived(12)
    assert stack.read_archived_ids() == [1, 6, 7, 8, 9, 10, 11, 12]
    assert stack.read_gaps() == [(2, 5)]
    (line,) = (row for row in read_lines(stack) if b'"id":6,' in row)
    assert b'{"n":6}' in line


def read_lines(stack: InProcessStack) -> list[bytes]:
    writer = stack.make_flusher()._resources._unrecovered.recover()
    try:
        return [line for seq in range(1, 13) if (line := writer.find_line(Seq(seq)))]
    finally:
        writer.close()


async def test_rest_of_a_broken_entry_is_set_aside_from_the_cursor_on(
    stack: InProcessStack,
) -> None:
    async with stack.run():
        pass
    store(stack.server, b"1 1 00000000\n{}\n{}\n{}\n{}", 4)
    assert stack.accept_loss(2) == 0
    async with stack.run():
        await stack.wait_until_archived(4)
    assert quarantined(stack) == [(3, 4)]
    assert stack.read_gaps() == [(1, 2)]


# --- draining needs no tier, committing does ------------------------------------------------


async def test_promoted_server_below_its_tier_is_drained_before_it_accepts_commits(
    stack: InProcessStack, tmp_path: Path
) -> None:
    weak = ["appendfsync everysec"]
    with Server(tmp_path / "replica", replica_of=stack.server, config=weak) as replica:
        wait_until(lambda: replica.replication()["master_link_status"] == "up", "the replica")
        async with stack.run() as (_, committer):
            assert await stack.post(committer, "a", 2) == [1, 2]
            await stack.wait_until_archived(2)
        last = store(stack.server, encode_entry([b'{"only":"copy"}'], 1))
        wait_until(lambda: replica.command("GET", KEYS.seq) == str(last), "the copy")
        stack.server.stop()
        replica.command("REPLICAOF", "NO", "ONE")
        async with run_flusher(
            make_flusher(endpoint_of(replica), stack.archive, bound=BOUND), ready=False
        ) as flusher:
            await poll_until(
                lambda: "appendfsync" in flusher.not_ready_reason, "the flusher to see it"
            )
            await poll_until(lambda: flusher.writer and flusher.writer.cursor == last, "the copy")
            assert replica.command("HGET", KEYS.state, "epoch") is None
            replica.client().config_set("appendfsync", "always")
            await wait_until_flushing(flusher)
            assert replica.command("HGET", KEYS.state, "epoch")
    assert stack.read_archived_ids() == [1, 2, 3]
    assert stack.read_gaps() == [(4, last + BOUND + 1)]


async def test_restarted_server_below_its_tier_is_drained_and_keeps_its_history(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "a", 2) == [1, 2]
        await stack.wait_until_archived(2)
    last = store(stack.server, encode_entry([b'{"only":"copy"}'], 1))
    config = stack.server.folder / "server.conf"
    durable = config.read_text()
    stack.server.stop()
    config.write_text(durable + "no-appendfsync-on-rewrite yes\n")
    stack.server.start()
    async with run_flusher(stack.make_flusher(), ready=False) as flusher:
        await poll_until(
            lambda: "no-appendfsync" in flusher.not_ready_reason, "the flusher to see it"
        )
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == last, "the copy")
        stack.server.client().config_set("no-appendfsync-on-rewrite", "no")
        await wait_until_flushing(flusher)
        await stack.wait_until_archived(last)
    assert stack.read_archived_ids() == [1, 2, 3]
    assert stack.read_gaps() == []
