"""What the records of partitions on several servers say of a partition without a server."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from busyapi.api.usage_finder import UsageFinder
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import NotSeeded, PartitionMismatch, RedisUnavailable, WaitingForParent
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.ownership import PartitionConfig, acquire_lease
from busyapi.flusher.seed import seed_partition
from busyapi.flusher.strides import settle_strides
from busyapi.ids import UsageId
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.reader import PartitionReader
from busyapi.stream.redis_url import parse_redis_url
from busyapi.stream.servers import RedisServers, parse_servers
from busyapi.stream.state import NO_RECORD
from testkit.servers import Server
from testkit.spread import Spread

FOREIGN = "has partition 1, of the server whose lowest is 1: one server is named twice"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    """Run two servers with three partitions, whose stride leaves room for a fourth."""
    with ExitStack() as running:
        both = [running.enter_context(Server(tmp_path / name)) for name in ("one", "two")]
        for partition, server in ((0, both[0]), (1, both[1]), (2, both[1])):
            write_record(server, partition, 3)
        yield both


def write_record(server: Server, partition: int, total: int) -> None:
    record: dict[str, str | int] = {
        "strides": "1 1:4",
        "epoch": "e",
        "total": total,
        "archive_id": "a",
        "server": min(partition, 1),
    }
    pairs = [text for pair in record.items() for text in pair]
    server.command("HSET", f"busyapi:{{{partition}}}:state", *pairs)
    server.command("SET", f"busyapi:{{{partition}}}:seq", 10)


def parse(servers: list[Server], *partitions: str) -> RedisServers:
    return parse_servers(Spread(dict(zip(partitions, servers, strict=True))).url, parse_redis_url)


async def test_partition_without_a_server_counts_as_one_that_never_began_until_a_record_knows_it(
    servers: list[Server],
) -> None:
    listed = parse(servers, "0", "1-2")
    finder = UsageFinder(lambda number: PartitionReader(listed.find(number), number), 3)
    assert [*await finder.read_states()] == [0, 1, 2]
    places = [place async for place in finder.find_places(UsageId(4_000_004))]
    assert (places[-1].partition, places[-1].state, places[-1].is_certain) == (3, NO_RECORD, True)
    servers[1].kill9()
    with pytest.raises(RedisUnavailable):  # the parent of partition 3 may have let it begin
        await finder.read_states()
    servers[1].start()
    write_record(servers[1], 1, 4)
    with pytest.raises(NotSeeded):
        await finder.read_states()
    await finder.close()


async def test_partition_does_not_begin_before_its_parent_records_it(
    servers: list[Server], tmp_path: Path
) -> None:
    archive = ArchiveConfig(tmp_path / "archive", 3, 4, 1000, 1 << 20, 3600.0, 0)
    writer = await asyncio.to_thread(PartitionWriter.recover, archive)
    partition = OwnedPartition(parse(servers, "0", "1-3"), 3, "fsync", "a")
    config = PartitionConfig(3, 4, 1000, "fsync")
    await partition.connect()
    assert await partition.acquire_lease() is False
    with pytest.raises(WaitingForParent, match="partition 1: it has to record that partition 3"):
        await settle_strides(partition, writer, config, NO_RECORD)
    write_record(servers[1], 1, 4)
    await settle_strides(partition, writer, config, NO_RECORD)
    assert writer.identity.strides.encode() == "1 1:4"
    writer.close()
    await partition.release()


async def test_server_is_not_taken_if_it_has_a_partition_of_another_one(
    servers: list[Server], tmp_path: Path
) -> None:
    _, two = servers
    uno = two.url.replace("127.0.0.1", "localhost")
    shifted = parse([two], "0-2")  # the entry of the first server was removed
    twice = parse_servers(f"0={uno} 1-2={two.url}", parse_redis_url)
    archive = ArchiveConfig(tmp_path / "archive", 0, 3, 1000, 1 << 20, 3600.0, 0)
    writer = await asyncio.to_thread(PartitionWriter.recover, archive)
    config = PartitionConfig(0, 3, 1000, "fsync")
    partition = OwnedPartition(twice, 0, "fsync", writer.identity.archive_id)
    await partition.connect()
    await acquire_lease(partition, writer.identity, config)
    with pytest.raises(PartitionMismatch, match=FOREIGN):
        await seed_partition(partition, writer, config, IdempotencyKeeper(3600, 1000))
    await partition.release()
    writer.update_identity(is_seeded=True, prefix="busyapi")
    partition = OwnedPartition(shifted, 0, "fsync", writer.identity.archive_id)
    await partition.connect()
    with pytest.raises(PartitionMismatch, match=FOREIGN):
        await acquire_lease(partition, writer.identity, config)
    await partition.release()
    writer.close()
    assert two.command("EXISTS", "busyapi:{0}:state", "busyapi:{0}:seq") == 0
