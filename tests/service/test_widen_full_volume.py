"""The archive's volume is full when a flusher widens its stride."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull
from busyapi.flusher.loop import Flusher
from busyapi.flusher.ownership import PartitionConfig
from busyapi.flusher.pause import end_pause
from busyapi.ids import Seq
from busyapi.sizing.costs import REDIS_KEY_BYTES
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.state import is_same_history
from testkit.in_process import endpoint_of, make_flusher, run_committer, run_flusher
from testkit.servers import Server
from testkit.volume import mount_small_volume

STATE = "busyapi:{0}:state"
USAGES = 8
CONFIG = PartitionConfig(0, 2, 1000, "fsync")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a volume that can archive some of the usages."""
    with mount_small_volume(tmp_path / "archive", "2m"):
        yield tmp_path / "archive"


@asynccontextmanager
async def own(
    flusher: Flusher, server: Server, usages: int
) -> AsyncIterator[tuple[OwnedPartition, PartitionWriter]]:
    """Seed a partition as its flusher does, and post usages that do not compress."""
    partition, writer = await flusher._resources.acquire()
    try:
        await flusher._seed(partition, writer)
        async with run_committer(endpoint_of(server)) as committer:
            for seq in range(1, usages + 1):
                noise = b'{"n":"%b"}' % os.urandom(400_000).hex().encode()
                assert await committer.post(noise) == seq
        yield partition, writer
    finally:
        await flusher._resources.close()


@pytest.fixture
async def installed(valkey: Server, volume: Path) -> Server:
    """Install one partition."""
    async with run_flusher(make_flusher(endpoint_of(valkey), volume)):
        return valkey


async def test_commits_continue_and_the_flusher_reads_on_behind_what_it_archived(
    installed: Server, volume: Path
) -> None:
    flusher = make_flusher(endpoint_of(installed), volume, partitions=2)
    epoch = installed.client().hget(STATE, "epoch")
    async with own(flusher, installed, USAGES) as (partition, writer):
        with pytest.raises(ArchiveFull):
            await flusher._widen_stride()
        assert 0 < writer.cursor < USAGES
        record = installed.client().hgetall(STATE)
        assert record["epoch"] != epoch
        assert is_same_history(str(record["epoch"]), str(epoch))
        assert (record["paused"], record["strides"]) == ("", "1 1:1")
        await partition.publish(writer.cursor)
        with pytest.raises(ArchiveFull):  # not LossSuspected: the stream begins at the cursor
            await flusher.run_cycle()
        await flusher._widen_stride()  # not before a minute has passed
        assert installed.client().hget(STATE, "epoch") == record["epoch"]


async def test_record_gets_the_stride_that_the_archive_has_already(
    installed: Server, volume: Path
) -> None:
    flusher = make_flusher(endpoint_of(installed), volume, partitions=2)
    async with own(flusher, installed, USAGES) as (partition, writer):
        epoch = await partition.revoke_epoch(pause=True)
        wider = writer.identity.strides.widen(Seq(USAGES + 1), 2)
        writer.update_identity(strides=wider)
        with pytest.raises(ArchiveFull):
            await end_pause(partition, writer, CONFIG, flusher._idempotency_keys, epoch)
        assert installed.client().hget(STATE, "strides") == wider.encode()
        assert installed.client().hget(STATE, "epoch")


async def test_keys_share_the_memory_of_the_partitions_of_the_install(
    installed: Server, volume: Path
) -> None:
    flusher = make_flusher(endpoint_of(installed), volume, partitions=8, max_keys=0)
    async with own(flusher, installed, 0) as (_, writer):
        keys = flusher._idempotency_keys
        assert writer.identity.strides.base == 1
        keys.update_max_keys(1 << 30)
        assert keys.max_keys == (1 << 30) // (2 * REDIS_KEY_BYTES)
