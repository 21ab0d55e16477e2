"""Entries of another version, entries that begin below the cursor, and entries on a weak server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi import cli
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
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    monkeypatch.setattr("busyapi.flusher.loop.HALT_RETRY_SECONDS", 0.2)
    with Server(tmp_path / "server", getattr(request, "param", "valkey")) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def store(server: Server, value: bytes, usages: int = 1, field: str = "u") -> int:
    """Store an entry as the commit script does; return its last seq."""
    last = int(server.command("GET", KEYS.seq) or 0) + usages
    server.client().xadd(KEYS.stream, {field: value}, id=f"{last}-{usages}")
    server.command("INCRBY", KEYS.seq, usages)
    return last


def quarantined(site: InProcessStack) -> list[tuple[int, int]]:
    return [entry[:2] for entry in read_archive(site.archive).partition(0).quarantined]


# --- entries of another version ------------------------------------------------------------------


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_entry_of_another_version_halts_and_waits_for_that_version(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 2) == [1, 2]
        newer = encode_entry([b'{"n":3}', b'{"n":4}'], 1).replace(b"1", b"7", 1)
        assert store(site.server, newer, 2) == 4
        assert await site.post(committer, "b", 1) == [5]
        await poll_until(
            lambda: "seqs 3 to 4 has version 7" in flusher.not_ready_reason, "the flusher to halt"
        )
        # The entries before it are archived; it and the entries after it stay in the stream.
        await site.wait_until_archived(2)
        assert flusher._metrics.halted._value.get() == 1
        assert site.read_entry_ids() == ["4-2", "5-1"]
        # Devices notice nothing until the bound is reached.
        assert await site.post(committer, "c", 1) == [6]
        assert quarantined(site) == []
        # The version that wrote it takes over.
        monkeypatch.setattr("busyapi.stream.entry.VERSION", b"7")
        await poll_until(
            lambda: "seqs 5 to 5 has version 1" in flusher.not_ready_reason, "the next entry"
        )
        await site.wait_until_archived(4)
        monkeypatch.setattr("busyapi.stream.entry.VERSION", b"1")
        await wait_until_flushing(flusher)
        await site.wait_until_archived(6)
        assert flusher._metrics.halted._value.get() == 0
    assert site.read_archived_ids() == [1, 2, 3, 4, 5, 6]
    assert site.read_gaps() == []


async def test_entry_with_a_field_of_another_version_halts_and_is_not_trimmed(
    site: InProcessStack,
) -> None:
    async with site.run() as (flusher, committer):
        assert await site.post(committer, "a", 1) == [1]
        store(site.server, encode_entry([b"{}"], 1), field="v2")
        await poll_until(
            lambda: "has an unknown field" in flusher.not_ready_reason, "the flusher to halt"
        )
        assert site.read_entry_ids()[-1] == "2-1"
        assert quarantined(site) == []


async def test_entry_of_another_version_stops_a_jump_before_anything_is_skipped(
    site: InProcessStack,
) -> None:
    async with site.run() as (_, committer):
        assert await site.post(committer, "a", 1) == [1]
        await site.wait_until_archived(1)
    store(site.server, b"2 newer\n{}")
    site.server.command("HDEL", KEYS.state, "epoch")
    async with run_flusher(site.make_flusher(), ready=False) as flusher:
        await poll_until(lambda: "has version 2" in flusher.not_ready_reason, "the flusher to halt")
        assert site.read_entry_ids() == ["2-1"]
        assert "epoch" not in site.read_state()
    assert site.read_gaps() == []


async def test_broken_entry_of_a_known_version_is_still_set_aside(site: InProcessStack) -> None:
    async with site.run() as (_, committer):
        assert await site.post(committer, "a", 1) == [1]
        store(site.server, b"1 1 00000000\n{}")
        assert await site.post(committer, "b", 1) == [3]
        await site.wait_until_archived(3)
    assert quarantined(site) == [(2, 2)]
    assert site.read_archived_ids() == [1, 3]


def test_lookup_of_an_entry_of_another_version_is_503(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    last = store(valkey, b"2 newer\n{}")
    answer = fetch(stack.port, f"/api/usages/{last}")
    assert answer.status == 503
    assert "Another version" in answer.json()["detail"]
    (flusher,) = stack.flushers
    wait_until(
        lambda: b"has version 2" in fetch(flusher.port, "/readyz").body, "the flusher to halt"
    )
    assert fetch(stack.port, f"/api/usages/{last}").status == 503
    stack.close()


# --- a cursor within an entry ---------------------------------------------------------------


def accept_loss(site: InProcessStack, through: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(site.archive))
    words = f"archive accept-loss --partition 0 --through {through} --reason typo --yes"
    assert cli.main(words.split()) == 0


async def test_rest_of_an_entry_is_archived_when_the_loss_of_its_start_is_accepted(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.run() as (_, committer):
        assert await site.post(committer, "a", 1) == [1]
        await site.wait_until_archived(1)
    store(site.server, encode_entry([b'{"n":%d}' % n for n in range(2, 12)], 1), 10)
    accept_loss(site, 5, monkeypatch)
    async with site.run() as (_, committer):
        assert await site.post(committer, "b", 1) == [12]
        await site.wait_until_archived(12)
    assert site.read_archived_ids() == [1, 6, 7, 8, 9, 10, 11, 12]
    assert site.read_gaps() == [(2, 5)]
    (line,) = (row for row in read_lines(site) if b'"id":6,' in row)
    assert b'{"n":6}' in line


def read_lines(site: InProcessStack) -> list[bytes]:
    writer = site.make_flusher()._resources._volume.recover()
    try:
        return [line for seq in range(1, 13) if (line := writer.find_line(Seq(seq)))]
    finally:
        writer.close()


async def test_rest_of_a_broken_entry_is_set_aside_from_the_cursor_on(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.run():
        pass
    store(site.server, b"1 1 00000000\n{}\n{}\n{}\n{}", 4)
    accept_loss(site, 2, monkeypatch)
    async with site.run():
        await site.wait_until_archived(4)
    assert quarantined(site) == [(3, 4)]
    assert site.read_gaps() == [(1, 2)]


# --- draining needs no tier, committing does ------------------------------------------------


async def test_promoted_server_that_is_weak_is_drained_before_it_accepts_commits(
    site: InProcessStack, tmp_path: Path
) -> None:
    weak = ["appendfsync everysec"]
    with Server(tmp_path / "replica", replica_of=site.server, config=weak) as replica:
        wait_until(lambda: replica.replication()["master_link_status"] == "up", "the replica")
        async with site.run() as (_, committer):
            assert await site.post(committer, "a", 2) == [1, 2]
            await site.wait_until_archived(2)
        last = store(site.server, encode_entry([b'{"only":"copy"}'], 1))
        wait_until(lambda: replica.command("GET", KEYS.seq) == str(last), "the copy")
        site.server.stop()
        replica.command("REPLICAOF", "NO", "ONE")
        async with run_flusher(
            make_flusher(endpoint_of(replica), site.archive, bound=BOUND), ready=False
        ) as flusher:
            await poll_until(
                lambda: "appendfsync" in flusher.not_ready_reason, "the flusher to see it"
            )
            await poll_until(lambda: flusher.writer and flusher.writer.cursor == last, "the copy")
            assert replica.command("HGET", KEYS.state, "epoch") is None
            replica.client().config_set("appendfsync", "always")
            await wait_until_flushing(flusher)
            assert replica.command("HGET", KEYS.state, "epoch")
    assert site.read_archived_ids() == [1, 2, 3]
    assert site.read_gaps() == [(4, last + BOUND + 1)]


async def test_restarted_server_that_is_weak_is_drained_and_keeps_its_history(
    site: InProcessStack,
) -> None:
    async with site.run() as (_, committer):
        assert await site.post(committer, "a", 2) == [1, 2]
        await site.wait_until_archived(2)
    last = store(site.server, encode_entry([b'{"only":"copy"}'], 1))
    config = site.server.folder / "server.conf"
    durable = config.read_text()
    site.server.stop()
    config.write_text(durable + "no-appendfsync-on-rewrite yes\n")
    site.server.start()
    async with run_flusher(site.make_flusher(), ready=False) as flusher:
        await poll_until(
            lambda: "no-appendfsync" in flusher.not_ready_reason, "the flusher to see it"
        )
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == last, "the copy")
        site.server.client().config_set("no-appendfsync-on-rewrite", "no")
        await wait_until_flushing(flusher)
        await site.wait_until_archived(last)
    assert site.read_archived_ids() == [1, 2, 3]
    assert site.read_gaps() == []
