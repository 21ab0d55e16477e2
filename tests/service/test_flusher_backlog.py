"""A backlog of large batches is archived with bounded memory, over any link, in small blocks."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from busyapi.archive.compression import read_content_size
from busyapi.archive.reader import scan_blocks
from busyapi.flusher.buffer import POLL_INTERVAL_SECONDS, FlushBuffer
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.ids import Seq
from busyapi.stream.entry import encode_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.partition import OwnedPartition
from busyapi.strides import IdScheme
from testkit.archive.builder import find_segments
from testkit.archive_reader import read_archive
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    open_archive,
    poll_until,
    run_flusher,
    wait_until_flushing,
)
from testkit.in_process_stack import InProcessStack
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

KEYS = PartitionKeys(0)
MIB = 1 << 20
MIN_LINK_BYTES = 1_000_000
"""Bytes a second."""


def make_entry(first: int, usages: int, size: int) -> bytes:
    """Return the value of an entry whose lines compress like prose."""
    words = b"inhaled twice, spacer used; " * (size // usages // 28)
    return encode_entry([b'{"n":%d,"note":"%b"}' % (first + n, words) for n in range(usages)], 1)


def fill(server: Server, entries: int, usages: int, size: int) -> int:
    """Store entries as the commit script does; return the last seq."""
    client = server.client()
    last = int(client.get(KEYS.seq) or 0)
    for _ in range(entries):
        value = make_entry(last + 1, usages, size)
        last += usages
        client.xadd(KEYS.stream, {"u": value}, id=f"{last}-{usages}")
        client.incrby(KEYS.seq, usages)
    return last


def peak_bytes(pid: int) -> int:
    """Return the peak of a process's resident bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise LookupError(pid)


def block_bytes(archive: Path) -> list[int]:
    """Return the size of each block's lines."""
    sizes = []
    for path in sorted(find_segments(archive)):
        with path.open("rb") as file:
            sizes += [
                read_content_size(block.data)
                for block in scan_blocks(file.fileno(), IdScheme.fixed(0, 1))
            ]
    return sizes


def archived_ids(archive: Path) -> list[int]:
    return [line.id for line in read_archive(archive).partition(0).lines]


def test_backlog_of_large_batches_takes_little_memory(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    (flusher,) = stack.flushers
    flusher.stop()
    last = fill(valkey, 16, 9000, 4 * MIB)
    valkey.command("CONFIG", "RESETSTAT")
    used = valkey.client().info("memory")["used_memory"]
    flusher.start()
    wait_until(
        lambda: valkey.command("HGET", KEYS.state, "archived") == str(last), "it", seconds=60
    )
    # All at once it would be 64 MiB, and several times that during compression.
    assert peak_bytes(flusher.pid) < 128 * MIB
    # The server's memory limit includes replies: here two copies of an entry.
    assert valkey.client().info("memory")["used_memory_peak"] - used < 16 * MIB
    assert flusher.stop() == 0
    assert archived_ids(stack.archive) == list(range(1, last + 1))
    sizes = block_bytes(stack.archive)
    assert len(sizes) > 16 * 4
    assert max(sizes) < 2 * MIB


@pytest.fixture
def stack(tmp_path: Path, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    return InProcessStack(valkey, tmp_path / "archive", monkeypatch)


@pytest.mark.parametrize("jump", [False, True], ids=["same history", "drained for a jump"])
async def test_slow_link_archives_batches_that_take_longer_than_a_reply_timeout(
    stack: InProcessStack, *, jump: bool
) -> None:
    async with run_flusher(stack.make_flusher(bound=100_000)):
        pass
    last = fill(stack.server, 2, 1000, 4 * MIB)
    if jump:
        stack.server.command("HDEL", KEYS.state, "epoch")
    with Proxy(stack.server.port) as link:
        link.rate = MIN_LINK_BYTES
        endpoint = replace(endpoint_of(stack.server), hosts=(("127.0.0.1", link.port),))
        flusher = make_flusher(endpoint, stack.archive, bound=100_000)
        lease_seconds: list[int] = []

        def is_archived() -> bool:
            remaining = int(stack.server.command("PTTL", KEYS.lease))
            lease_seconds.append(remaining)
            assert flusher.not_ready_reason in {"", "starting"}
            return (flusher.writer.cursor if flusher.writer else 0) >= last

        async with run_flusher(flusher, ready=False):
            await poll_until(is_archived, "the backlog", seconds=40)
            await wait_until_flushing(flusher, seconds=20)
            # The lease is renewed all the time, so no other flusher may take it.
            assert min(seconds for seconds in lease_seconds if seconds > 0) > 8_000
    assert stack.read_archived_ids() == list(range(1, last + 1))
    assert bool(stack.read_gaps()) == jump


async def test_link_that_fails_in_the_middle_is_read_in_smaller_parts(
    stack: InProcessStack,
) -> None:
    async with run_flusher(stack.make_flusher(bound=100_000)):
        pass
    last = fill(stack.server, 2, 1000, 4 * MIB)
    with Proxy(stack.server.port) as link:
        link.rate = 4 * MIN_LINK_BYTES
        endpoint = replace(endpoint_of(stack.server), hosts=(("127.0.0.1", link.port),))
        flusher = make_flusher(endpoint, stack.archive, bound=100_000)
        async with run_flusher(flusher, ready=False):
            for _ in range(4):
                await asyncio.sleep(0.7)
                await asyncio.to_thread(link.reset)
            await poll_until(lambda: stack.read_state()["archived"] == str(last), "it", seconds=20)
    assert stack.read_archived_ids() == list(range(1, last + 1))


async def test_entries_that_arrive_one_by_one_are_read_together(stack: InProcessStack) -> None:
    """A read for each of them would cost Redis more than the entry itself."""
    async with run_flusher(stack.make_flusher(bound=100_000)):
        stack.server.command("CONFIG", "RESETSTAT")
        started = monotonic()
        last = await asyncio.to_thread(fill, stack.server, 3000, 1, 100)
        await poll_until(lambda: stack.read_state()["archived"] == str(last), "it", seconds=20)
        calls = stack.server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
    # Besides the reads, a few calls a second publish the cursor and renew the lease.
    assert calls < 2 * (monotonic() - started) / POLL_INTERVAL_SECONDS + 10
    assert stack.read_archived_ids() == list(range(1, last + 1))


async def test_flusher_that_stops_reads_all_that_waits(stack: InProcessStack) -> None:
    async with run_flusher(stack.make_flusher(bound=100_000)):
        pass
    last = fill(stack.server, 3000, 1, 100)  # more than fit into some replies
    stopping = asyncio.Event()
    stopping.set()
    with closing(open_archive(stack.archive, bound=100_000)) as writer:
        archive_id = writer.identity.archive_id
        partition = OwnedPartition(endpoint_of(stack.server), 0, "fsync", archive_id)
        await partition.connect()
        await partition.acquire_lease()
        buffer = FlushBuffer(Seq(0), IdempotencyKeeper(3600, 1000))
        await buffer.fill(partition, stopping)
        usages, _ = await buffer.flush(writer, partition)
        await partition.release()
    assert usages == last


def test_flusher_killed_between_two_blocks_of_an_entry_repeats_and_loses_nothing(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey)
    (flusher,) = stack.flushers
    flusher.stop()
    last = fill(valkey, 2, 1000, 4 * MIB)
    flusher.environment["BUSYAPI_FAILPOINTS"] = "archive-after-sync=kill@3"
    flusher.spawn()
    flusher.wait(20)
    assert valkey.command("HGET", KEYS.state, "archived") == "0"
    ids = archived_ids(stack.archive)
    assert 0 < len(ids) < 1000, "it did not die within the first entry"
    del flusher.environment["BUSYAPI_FAILPOINTS"]
    flusher.start()
    wait_until(lambda: valkey.command("HGET", KEYS.state, "archived") == str(last), "the rest")
    flusher.stop()
    assert archived_ids(stack.archive) == list(range(1, last + 1))
