"""The lease of a partition: who may take it, who keeps it, and what shows that it is gone."""

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
from testkit.in_process import endpoint_of
from testkit.servers import FLAVOURS, Server

KEYS = PartitionKeys(0)
# The bundled Valkey's ACL before 0.3.0: no PTTL, no DEL.
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
    owner = await connected(endpoint_of(server), "archive-a")
    await owner.acquire_lease()
    await owner.seed(Seq(0), {"epoch": "e"}, seq=Seq(0))
    yield owner
    await owner.close()


async def connected(endpoint: Endpoint, archive: str) -> OwnedPartition:
    partition = OwnedPartition(endpoint, 0, "fsync", archive)
    await partition.connect()
    return partition


async def seconds_to_take(partition: OwnedPartition) -> float:
    began = monotonic()
    async with asyncio.timeout(20):
        while True:
            try:
                await partition.acquire_lease()
            except LeaseLost:
                await asyncio.sleep(0.05)
            else:
                return monotonic() - began


async def test_connecting_takes_nothing(server: Server) -> None:
    other = await connected(endpoint_of(server), "archive-b")
    await other.read_snapshot()
    assert server.command("EXISTS", KEYS.lease) == 0
    await other.release()


async def test_another_archive_cannot_take_write_or_release(
    server: Server, owner: OwnedPartition
) -> None:
    before = server.command("GET", KEYS.lease)
    # A name that begins like the owner's is another name.
    for archive in ("archive-b", "archive"):
        other = await connected(endpoint_of(server), archive)
        for refused in (
            other.acquire_lease(),
            other.publish(Seq(0)),
            other.seed(Seq(0), {"epoch": "stolen"}, seq=Seq(7)),
            other.revoke_epoch(),
            other.mark_doubt("stolen"),
            other.renew_lease(),
        ):
            with pytest.raises(LeaseLost):
                await refused
        await other.release()
    assert server.command("GET", KEYS.lease) == before
    assert server.command("HGET", KEYS.state, "epoch") == "e"
    assert await owner.publish(Seq(0)) == 0


async def test_released_lease_is_free_at_once(server: Server, owner: OwnedPartition) -> None:
    await owner.release()
    assert server.command("EXISTS", KEYS.lease) == 0
    other = await connected(endpoint_of(server), "archive-b")
    assert await seconds_to_take(other) < STALE_SECONDS / 2
    await other.release()


async def test_renewed_lease_is_not_taken_by_the_same_archive(
    server: Server, owner: OwnedPartition
) -> None:
    # Its lock should have kept it out: so the lock is void, and the lease has to.
    second = await connected(endpoint_of(server), "archive-a")
    end = monotonic() + STALE_SECONDS * 2
    while monotonic() < end:
        await owner.renew_lease()
        with pytest.raises(LeaseLost):
            await second.acquire_lease()
        await asyncio.sleep(0.5)
    # The owner ends, or sleeps.
    assert STALE_SECONDS - 1 < await seconds_to_take(second) < STALE_SECONDS + 1
    for refused in (owner.publish(Seq(0)), owner.renew_lease(), owner.revoke_epoch()):
        with pytest.raises(ArchiveTakenOver):
            await refused
    await second.close()


@pytest.mark.usefixtures("owner")
async def test_lease_that_is_silent_for_long_is_taken_at_once(server: Server) -> None:
    server.command("PEXPIRE", KEYS.lease, 7_000)
    second = await connected(endpoint_of(server), "archive-a")
    assert await seconds_to_take(second) < STALE_SECONDS / 2
    await second.close()


@pytest.mark.usefixtures("owner")
async def test_of_two_newcomers_one_takes_the_stale_lease(server: Server) -> None:
    server.command("PEXPIRE", KEYS.lease, 7_000)
    newcomers = [await connected(endpoint_of(server), "archive-a") for _ in range(4)]
    taken = await asyncio.gather(
        *(each.acquire_lease() for each in newcomers), return_exceptions=True
    )
    assert [isinstance(each, LeaseLost | ArchiveTakenOver) for each in taken].count(False) == 1
    for each in newcomers:
        await each.release()


async def test_expired_lease_is_lost_to_its_owner(server: Server, owner: OwnedPartition) -> None:
    server.command("DEL", KEYS.lease)  # as when the server's clock steps
    for refused in (owner.publish(Seq(2)), owner.renew_lease()):
        with pytest.raises(LeaseLost):
            await refused
    assert await owner.acquire_lease() is False
    assert await owner.acquire_lease() is True


async def test_user_of_an_earlier_acl_waits_until_the_lease_has_expired(tmp_path: Path) -> None:
    with Server(
        tmp_path / "s", acl=["user default off", OLD_USER], username="busyapi", password="s3cret"
    ) as server:
        owner = await connected(endpoint_of(server), "archive-a")
        await owner.acquire_lease()
        await owner.close()
        second = await connected(endpoint_of(server), "archive-a")
        assert STALE_SECONDS + 1 < await seconds_to_take(second) < 12
        await second.release()
        third = await connected(endpoint_of(server), "archive-b")
        assert await seconds_to_take(third) < 1
        await third.release()
