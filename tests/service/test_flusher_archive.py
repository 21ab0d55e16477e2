"""A flusher when the stream or the archive is damaged, incomplete or full."""

import json
import shutil
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from structlog.testing import capture_logs

from busyapi.archive.writer import PartitionWriter
from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import BufferFull
from busyapi.stream.entry import encode_entry
from busyapi.stream.partition import OwnedPartition
from testkit.archive.builder import find_segments
from testkit.archive_reader import read_archive
from testkit.in_process import (
    endpoint_of,
    gather_results,
    make_flusher,
    make_lines,
    poll_until,
    record_calls,
    run_flusher,
    wait_until_flushing,
    wait_until_halted,
)
from testkit.in_process_stack import KEYS, InProcessStack
from testkit.servers import Server
from testkit.volume import fill_volume, mount_small_volume


@pytest.fixture
def stack(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


# --- the stream ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"1 1 00000000\n{}\n{}", "checksum"),
        (encode_entry([b"{}"], 1), "count"),
        (b"not an entry of busyapi", "header"),
    ],
)
async def test_unreadable_entry_is_quarantined_and_the_rest_is_archived(
    stack: InProcessStack, value: bytes, why: str
) -> None:
    async with stack.run() as (flusher, committer):
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        stack.server.client().xadd(KEYS.stream, {"u": value}, id="5-2")
        stack.server.client().set(KEYS.seq, 5)
        assert await stack.post(committer, "b", 2) == [6, 7]
        await stack.wait_until_archived(7)
        assert flusher._metrics.quarantined_usages._value.get() == 2
        assert stack.read_entry_ids() == []
    archive = read_archive(stack.archive)
    assert [entry[:2] for entry in archive.partition(0).quarantined] == [(4, 5)]
    assert stack.read_archived_ids() == [1, 2, 3, 6, 7]
    (quarantine,) = stack.archive.rglob("quarantine-*.bin")
    head, _, raw = quarantine.read_bytes().partition(b"\n")
    assert raw == value
    assert json.loads(head)["why"] == why
    assert stack.run_command("verify") == 0


async def test_hole_in_the_stream_halts_after_the_entries_before_it_are_archived(
    stack: InProcessStack,
) -> None:
    async with stack.run():
        pass
    async with stack.run_committer() as committer:
        for name in "abc":
            await stack.post(committer, name, 2)
        (first, *_, last) = stack.read_entry_ids()
        assert stack.server.client().xdel(KEYS.stream, "4-2") == 1
        assert (first, last) == ("2-2", "6-2")
        async with run_flusher(stack.make_flusher(), ready=False) as flusher:
            reason = await wait_until_halted(flusher)
            assert "continues at seq 5, but seq 3 is next" in reason
            assert "--partition 0 --through 4" in reason
            await stack.wait_until_archived(2)
            # Devices notice nothing until the bound is reached.
            assert await stack.post(committer, "d", 1) == [7]
            assert stack.accept_reported_loss(reason) == 0
            await wait_until_flushing(flusher)
            await stack.wait_until_archived(7)
    assert stack.read_archived_ids() == [1, 2, 5, 6, 7]
    assert stack.read_gaps() == [(3, 4)]


# --- the volume ----------------------------------------------------------------------------


async def test_empty_volume_halts_until_an_operator_accepts_the_loss(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    shutil.rmtree(stack.archive)
    stack.server.command("DEL", KEYS.lease)  # as if it had expired
    async with (
        stack.run_committer() as committer,
        run_flusher(stack.make_flusher(), ready=False) as flusher,
    ):
        reason = await wait_until_halted(flusher)
        assert "the other has usages up to seq 3" in reason
        assert stack.server.command("EXISTS", KEYS.lease) == 0
        assert await stack.post(committer, "b", 2) == [4, 5]
        assert stack.read_archived_ids() == []
        assert stack.accept_reported_loss(reason) == 0
        await wait_until_flushing(flusher, seconds=5)
        await stack.wait_until_archived(5)
    assert stack.read_archived_ids() == [4, 5]
    assert stack.read_gaps() == [(1, 3)]


async def test_halted_flusher_logs_its_recovery_once(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    for path in stack.archive.rglob("usages-*"):
        path.unlink()
    flusher = stack.make_flusher()
    recover, tries = PartitionWriter.recover, []

    def count_and_recover(*arguments: Any, **options: Any) -> PartitionWriter:
        tries.append(1)
        return recover(*arguments, **options)

    monkeypatch.setattr(PartitionWriter, "recover", count_and_recover)
    with capture_logs() as log:
        async with run_flusher(flusher, ready=False):
            await poll_until(lambda: len(tries) > 3, "the flusher to try again")
    assert [line["cursor"] for line in log if line["event"] == "archive_recovered"] == [0]


async def test_older_volume_halts_and_the_right_one_continues(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    shutil.copytree(stack.archive, stack.archive.with_name("older"))
    async with stack.run() as (_, committer):
        await stack.post(committer, "b", 2)
        await stack.wait_until_archived(5)
    stack.archive.rename(stack.archive.with_name("right"))
    stack.archive.with_name("older").rename(stack.archive)
    async with run_flusher(stack.make_flusher(), ready=False) as flusher:
        reason = await wait_until_halted(flusher)
        assert "up to seq 5" in reason
        assert "ends at seq 3" in reason
    shutil.rmtree(stack.archive)
    stack.archive.with_name("right").rename(stack.archive)
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "c", 1) == [6]
        await stack.wait_until_archived(6)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]


async def test_damaged_segment_is_set_aside_and_an_operator_accepts_the_loss(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    (segment,) = find_segments(stack.archive)
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 0xFF
    segment.write_bytes(content)
    async with (
        run_flusher(stack.make_flusher(), ready=False) as flusher,
        stack.run_committer() as committer,
    ):
        reason = await wait_until_halted(flusher)
        assert "seq 3" in reason
        assert await stack.post(committer, "b", 1) == [4]
        assert stack.accept_reported_loss(reason) == 0
        await wait_until_flushing(flusher)
        await stack.wait_until_archived(4)
    assert len(list(stack.archive.rglob("*.damaged*"))) == 1


async def test_good_file_replaces_what_was_recovered(stack: InProcessStack, tmp_path: Path) -> None:
    """Follow the runbook of BusyapiFlusherHalted."""
    async with stack.run() as (_, committer):
        for seq in (1, 2, 3):
            await stack.post(committer, "a", 1)
            await stack.wait_until_archived(seq)
    (segment,) = find_segments(stack.archive)
    good = segment.read_bytes()
    segment.write_bytes(good[:80] + bytes([good[80] ^ 0xFF]) + good[81:])  # in the first block
    async with (
        run_flusher(stack.make_flusher(), ready=False) as flusher,
        stack.run_committer() as committer,
    ):
        assert "seqs 1 to 1 are missing" in await wait_until_halted(flusher)
        damaged, piece = sorted(segment.parent.glob("usages-*"))
        assert damaged.name == f"{segment.name}.damaged"
        temporary = stack.archive / segment.name
        temporary.write_bytes(good)
        temporary.rename(segment)
        await poll_until(
            lambda: "hold the same seqs" in flusher.not_ready_reason, "the flusher to see both"
        )
        assert piece.name in flusher.not_ready_reason
        for path in (damaged, piece):
            path.rename(tmp_path / path.name)
        await wait_until_flushing(flusher)
        assert await stack.post(committer, "b", 1) == [4]
        await stack.wait_until_archived(4)
    assert stack.read_archived_ids() == [1, 2, 3, 4]
    assert stack.run_command("verify") == 0


async def test_second_flusher_on_the_same_volume_waits_for_the_lock(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        async with run_flusher(stack.make_flusher(), ready=False) as second:
            await poll_until(
                lambda: "another process writes" in second.not_ready_reason, "the second to halt"
            )
            assert await stack.post(committer, "a", 3) == [1, 2, 3]
            await stack.wait_until_archived(3)
            assert second.not_ready_reason
        assert await stack.post(committer, "b", 1) == [4]
    async with stack.run() as (_, committer):
        assert await stack.post(committer, "c", 1) == [5]


async def test_second_flusher_on_another_volume_gets_no_lease(
    stack: InProcessStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = make_flusher(endpoint_of(stack.server), tmp_path / "other")
    async with stack.run() as (first, committer), run_flusher(elsewhere, ready=False) as second:
        await poll_until(lambda: "lease" in second.not_ready_reason, "the second to be refused")
        assert await stack.post(committer, "a", 3) == [1, 2, 3]
        await stack.wait_until_archived(3)
        tries = record_calls(monkeypatch, OwnedPartition, "connect")
        await poll_until(lambda: len(tries) >= 2, "the second to try again")
        assert "lease" in second.not_ready_reason
        assert not first.not_ready_reason
    assert stack.read_archived_ids() == [1, 2, 3]
    assert read_archive(tmp_path / "other").partition(0).lines == []


async def test_flusher_that_lost_its_lease_while_suspended_loses_nothing(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (first, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
        # A flusher of another archive took the lease while this one was suspended.
        stack.server.command("SET", KEYS.lease, "other:token", "PX", 60_000)
        await stack.post(committer, "b", 3)
        await poll_until(lambda: first.not_ready_reason, "the first to notice")
        assert stack.server.command("HGET", KEYS.state, "archived") == "3"
        assert stack.read_entry_ids() != []
        stack.server.command("DEL", KEYS.lease)  # as if it had expired
        await wait_until_flushing(first)
        await stack.wait_until_archived(6)
    assert stack.read_archived_ids() == [1, 2, 3, 4, 5, 6]


def incompressible(count: int) -> list[bytes]:
    """Return usages that do not fit into the last block of a file."""
    return [b'{"random":"%b"}' % token_hex(100).encode() for _ in range(count)]


async def test_full_volume_stops_archiving_loses_nothing_and_recovers_by_itself(
    stack: InProcessStack,
) -> None:
    with mount_small_volume(stack.archive, "512k"):
        async with stack.run(bound=5000) as (flusher, committer):
            await stack.post(committer, "a", 3)
            await stack.wait_until_archived(3)
            ballast = fill_volume(stack.archive)
            await gather_results([committer.post(usage) for usage in incompressible(1000)])
            await poll_until(
                lambda: "No space" in flusher.not_ready_reason, "the flusher to notice"
            )
            assert flusher._metrics.archive_errors["full"]._value.get() > 0
            cursor = int(stack.read_state()["archived"])
            assert cursor < 1003
            # The metrics show the growing backlog meanwhile.
            await gather_results([committer.post(usage) for usage in incompressible(1000)])
            await poll_until(
                lambda: flusher._metrics.issued_seq._value.get() == 2003, "the backlog to show"
            )
            assert int(stack.read_state()["archived"]) == cursor
            assert stack.server.client().pttl(KEYS.lease) > 5_000
            ballast.unlink()
            await wait_until_flushing(flusher)
            await stack.wait_until_archived(2003)
            assert await stack.post(committer, "d", 1) == [2004]
            await stack.wait_until_archived(2004)
        assert stack.read_archived_ids() == list(range(1, 2005))
        assert stack.read_gaps() == []
        assert read_archive(stack.archive).damaged == []


# --- a full buffer -------------------------------------------------------------------------


async def test_full_buffer_refuses_and_accepts_again_when_the_flusher_is_back(
    stack: InProcessStack,
) -> None:
    async with stack.run(bound=10):
        pass
    async with stack.run_committer() as committer:
        answers = await stack.post(committer, "a", 12)
        assert answers[:10] == list(range(1, 11)) or any(
            isinstance(answer, BufferFull) for answer in answers
        )
        (refused,) = await gather_results([committer.post(*make_lines("b", 11))])
        assert isinstance(refused, BufferFull)
        async with run_flusher(stack.make_flusher(bound=10)):
            await poll_until(lambda: stack.read_entry_ids() == [], "the buffer to be archived")
            (last,) = await stack.post(committer, "c", 1)
            assert isinstance(last, int)
            await stack.wait_until_archived(last)
    assert stack.read_archived_ids() == list(range(1, last + 1))


async def test_full_memory_is_freed_by_a_flusher_that_comes_back(stack: InProcessStack) -> None:
    async with stack.run():
        pass
    async with stack.run_committer() as committer:
        filler = b'{"filler":"' + b"x" * 10_000 + b'"}'
        client = stack.server.client()
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 300_000)
        posted = 0
        answer: int | BaseException = 0
        while isinstance(answer, int) and posted < 500:
            (answer,) = await gather_results([committer.post(filler)])
            posted += 1
        assert isinstance(answer, BufferFull)
        # It must lease, seed and trim on a server that accepts no more data.
        async with run_flusher(stack.make_flusher()):
            await poll_until(lambda: stack.read_entry_ids() == [], "the buffer to be archived")
            (again,) = await gather_results([committer.post(filler, key=IdempotencyKey("a", "b"))])
            assert again == posted
            await stack.wait_until_archived(posted)
    assert stack.read_archived_ids() == list(range(1, posted + 1))


async def test_earlier_larger_bound_is_used_for_a_jump(stack: InProcessStack) -> None:
    async with stack.run(bound=5000) as (_, committer):
        await stack.post(committer, "a", 3)
        await stack.wait_until_archived(3)
    async with stack.run(bound=10) as (_, committer):
        assert stack.read_state()["bound"] == "10"
        assert await stack.post(committer, "b", 1) == [4]
        await stack.wait_until_archived(4)
    stack.server.stop()
    stack.server.wipe()
    stack.server.start()
    async with stack.run(bound=10) as (_, committer):
        # Under the first bound, ids up to 4 + 5000 may have been acknowledged.
        assert await stack.post(committer, "c", 1) == [4 + 5000 + 2]
