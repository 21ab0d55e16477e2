"""Idempotency-Keys after a failover to a server that lacks what the former primary last stored.

The flusher archives new keys before their usages. So the key files may name usages that no archive
has, and that the new primary lacks.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from busyapi.archive.holders import read_holders
from busyapi.archive.idempotency_log import list_parts, read_part
from busyapi.archive.writer import PartitionWriter
from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import RedisUnavailable
from busyapi.flusher import idempotency
from busyapi.flusher.loop import Flusher
from busyapi.flusher.seed import REPLACED
from busyapi.stream.redis_url import parse_redis_url
from testkit.archive_reader import read_archive
from testkit.in_process import (
    CommitterHarness,
    endpoint_of,
    make_flusher,
    poll_until,
    run_committer,
    run_flusher,
    seed_once,
)
from testkit.proxy import Proxy
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until

SEQ, LEASE, STATE = (f"busyapi:{{0}}:{name}" for name in ("seq", "lease", "state"))


def make_key(name: str) -> IdempotencyKey:
    """Return a key whose digest is its name."""
    return IdempotencyKey(name, "body")


def list_keys(archive: Path) -> list[str]:
    """Return the digests in the key files."""
    parts = list_parts(archive / "p00", 0)
    return [key.key_digest for part in parts for key in read_part(part) if key]


class Archiving:
    """Usages are archived unless it is stopped; keys always are."""

    is_stopped = False


@pytest.fixture
def archiving(monkeypatch: pytest.MonkeyPatch) -> Archiving:
    """Allow a test to lose the primary between the sync of keys and that of their usages."""
    state, append = Archiving(), PartitionWriter.append

    def append_unless_stopped(self: PartitionWriter, *args: object) -> object:
        if state.is_stopped:
            raise RedisUnavailable("the test loses it here")
        return append(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(PartitionWriter, "append", append_unless_stopped)
    return state


@asynccontextmanager
async def run_pair(trio: Trio, flusher: Flusher) -> AsyncIterator[CommitterHarness]:
    """Archive usage 1, which all have; yield a committer that waits for no replica."""
    new, last = trio.replicas
    last.command("REPLICAOF", "127.0.0.1", new.port)
    wait_until(lambda: count_online(new) == 1, "the last one to follow")
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated") as committer,
        run_committer(trio.where, tier="fsync") as unconfirmed,
    ):
        assert await committer.post(b"{}") == 1
        await poll_until(lambda: len(read_holders(trio.archive / "p00").processes) == 2, "both")
        await unconfirmed.wait_until_ready()
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == 1, "the archive")
        yield unconfirmed


async def test_key_whose_usage_is_lost_does_not_answer_for_another_usage(
    trio: Trio, archiving: Archiving
) -> None:
    new, last = trio.replicas
    lost = make_key("lost")
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with run_pair(trio, flusher) as unconfirmed:
        archiving.is_stopped = True
        new.command("REPLICAOF", "NO", "ONE")
        assert await unconfirmed.post(b"{}", key=lost) == 2
        await poll_until(lambda: list_keys(trio.archive), "the key in the archive")
    archiving.is_stopped = False
    wait_until(lambda: count_online(new) == 1, "the last one to be back")
    epoch = new.client().hget(STATE, "epoch")
    new.client().delete(LEASE)  # of the flusher that was on the old one
    where = endpoint_of(new)
    assert await seed_once(where, trio.archive, tier="replicated") == REPLACED
    assert new.client().hget(STATE, "epoch") != epoch
    (gap,) = read_archive(trio.archive).partition(0).gaps
    assert (gap.first, gap.last) == (2, 2)
    # A restore, as after the next failover, when another usage has been archived.
    flusher = make_flusher(where, trio.archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(where, tier="replicated") as committer,
        run_committer(where, tier="fsync") as unconfirmed,
    ):
        assert await committer.post(b'{"other":1}') == 3
        await poll_until(lambda: len(read_holders(trio.archive / "p00").processes) == 2, "both")
        await unconfirmed.wait_until_ready()
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == 3, "the archive")
        last.command("REPLICAOF", "NO", "ONE")
        assert await unconfirmed.post(b"{}") == 4
        await poll_until(lambda: flusher.writer and flusher.writer.cursor == 4, "it")
    new.command("REPLICAOF", "127.0.0.1", last.port)
    wait_until(lambda: count_online(last) == 1, "the former primary to follow")
    last.client().delete(LEASE)
    where = endpoint_of(last)
    assert await seed_once(where, trio.archive, tier="replicated") == REPLACED
    async with run_committer(where, tier="replicated") as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", key=lost) == 5  # stored, not a replay


async def test_keys_of_the_new_primary_reach_the_archive_of_the_same_flusher(
    trio: Trio, archiving: Archiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seqs come again, as if the files with the lost keys could not be read.
    monkeypatch.setattr(idempotency, "find_last_seq", lambda _, known: known)
    new = trio.replicas[0]
    with Proxy(trio.primary.port) as proxy:
        where = parse_redis_url(proxy.url)
        flusher = make_flusher(where, trio.archive, tier="replicated")
        async with run_pair(trio, flusher) as unconfirmed:
            archiving.is_stopped = True
            new.command("REPLICAOF", "NO", "ONE")
            for number in range(3):
                await unconfirmed.post(b"{}", key=make_key(f"lost{number}"))
            await poll_until(lambda: len(set(list_keys(trio.archive))) == 3, "the keys")
            proxy.target = new.port
            proxy.reset()
            archiving.is_stopped = False
            async with run_committer(where, tier="replicated") as committer:
                await committer.wait_until_ready(20)
                last = await committer.post(b"{}", key=make_key("new"))
                await poll_until(lambda: flusher.writer and flusher.writer.cursor == last, "it")
    assert "new" in list_keys(trio.archive)
