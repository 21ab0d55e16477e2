"""The lease of a partition: who may acquire and keep it, and how an owner notices its loss."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import pytest

from busyapi.errors import ArchiveTakenOver, LeaseLost
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.lease import STALE_SECONDS
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.servers import RedisServers
from testkit.in_process import endpoint_of
from testkit.servers import FLAVOURS, Server

KEYS = PartitionKeys(0)
# The ACL of the bundled Valkey before 0.3.0, without PTTL and DEL.
OLD_COMMANDS = (
    "+ping +evalsha +script|load +info +config|get +get +set +pexpire +exists +hget +hmget +hset"
    " +hdel +hexists +xread +xtrim"
)
OLD_USER = f"user busyapi on >s3cret resetchannels ~busyapi:* -@all {OLD_COMMANDS}"


@pytest.fixture(params=FLAVOURS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server", request.param) as server:
        yield server


@pytest.fixture
async def owner(server: Server) -> AsyncIterator[OwnedPartition]:
    """A flusher of archive-a that has the lease."""
    owner = await connect(endpoint_of(server), "archive-a")
    await owner.acquire_lease()
    await owner.seed(Seq(0), {"epoch": "e"}, seq=Seq(0))
    yield owner
    await owner.close()


async def connect(endpoint: Endpoint, archive: str) -> OwnedPartition:
    partition = OwnedPartition(RedisServers(only=endpoint), 0, "fsync", archive)
    await partition.connect()
    return partition


async def measure_acquire_seconds(partition: OwnedPartition) -> float:
    started = monotonic()
    async with asyncio.timeout(20):
        while True:
            try:
                await partition.acquire_lease()
            except LeaseLost:
                await asyncio.sleep(0.05)
            else:
                return monotonic() - started


async def test_connecting_acquires_nothing(server: Server) -> None:
    other = await connect(endpoint_of(server), "archive-b")
    await other.read_snapshot()
    assert server.command("EXISTS", KEYS.lease) == 0
    await other.release()


async def test_another_archive_cannot_acquire_write_or_release(
    server: Server, owner: OwnedPartition
) -> None:
    before = server.command("GET", KEYS.lease)
    # A name that is a prefix of the owner's is another name.
    for archive in ("archive-b", "archive"):
        other = await connect(endpoint_of(server), archive)
        for operation in (
            other.acquire_lease(),
            other.publish(Seq(0)),
            other.seed(Seq(0), {"epoch": "stolen"}, seq=Seq(7)),
            other.revoke_epoch(),
            other.record_doubt("stolen"),
            other.renew_lease(),
        ):
            with pytest.raises(LeaseLost):
                await operation
        await other.release()
    assert server.command("GET", KEYS.lease) == before
    assert server.command("HGET", KEYS.state, "epoch") == "e"
    assert await owner.publish(Seq(0)) == 0


async def test_released_lease_is_free_at_once(server: Server, owner: OwnedPartition) -> None:
    await owner.release()
    assert server.command("EXISTS", KEYS.lease) == 0
    other = await connect(endpoint_of(server), "archive-b")
    assert await measure_acquire_seconds(other) < STALE_SECONDS / 2
    await other.release()


async def test_renewed_lease_is_refused_to_the_same_archive(
    server: Server, owner: OwnedPartition
) -> None:
    # The lock should keep the second one out. Here it does not work, so the lease must.
    second = await connect(endpoint_of(server), "archive-a")
    end = monotonic() + STALE_SECONDS * 2
    while monotonic() < end:
        await owner.renew_lease()
        with pytest.raises(LeaseLost):
            await second.acquire_lease()
        await asyncio.sleep(0.5)
    # Now the owner has ended or is suspended.
    assert STALE_SECONDS - 1 < await measure_acquire_seconds(second) < STALE_SECONDS + 1
    for operation in (owner.publish(Seq(0)), owner.renew_lease(), owner.revoke_epoch()):
        with pytest.raises(ArchiveTakenOver):
            await operation
    await second.close()


@pytest.mark.usefixtures("owner")
async def test_stale_lease_is_acquired_at_once(server: Server) -> None:
    server.command("PEXPIRE", KEYS.lease, 7_000)
    second = await connect(endpoint_of(server), "archive-a")
    assert await measure_acquire_seconds(second) < STALE_SECONDS / 2
    await second.close()


@pytest.mark.usefixtures("owner")
async def test_only_one_of_several_newcomers_acquires_a_stale_lease(server: Server) -> None:
    server.command("PEXPIRE", KEYS.lease, 7_000)
    newcomers = [await connect(endpoint_of(server), "archive-a") for _ in range(4)]
    results = await asyncio.gather(
        *(newcomer.acquire_lease() for newcomer in newcomers), return_exceptions=True
    )
    failures = [isinstance(result, LeaseLost | ArchiveTakenOver) for result in results]
    assert failures.count(False) == 1
    for newcomer in newcomers:
        await newcomer.release()


async def test_expired_lease_is_lost_to_its_owner(server: Server, owner: OwnedPartition) -> None:
    server.command("DEL", KEYS.lease)  # as when the server's clock steps
    for operation in (owner.publish(Seq(2)), owner.renew_lease()):
        with pytest.raises(LeaseLost):
            await operation
    assert await owner.acquire_lease() is False
    assert await owner.acquire_lease() is True


async def test_user_with_an_earlier_acl_waits_until_the_lease_expires(tmp_path: Path) -> None:
    with Server(
        tmp_path / "s", acl=["user default off", OLD_USER], username="busyapi", password="s3cret"
    ) as server:
        owner = await connect(endpoint_of(server), "archive-a")
        await owner.acquire_lease()
        await owner.close()
        second = await connect(endpoint_of(server), "archive-a")
        assert STALE_SECONDS + 1 < await measure_acquire_seconds(second) < 12
        await second.release()
        third = await connect(endpoint_of(server), "archive-b")
        assert await measure_acquire_seconds(third) < 1
        await third.release()
