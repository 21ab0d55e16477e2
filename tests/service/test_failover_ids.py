"""Ids after a failover to a server that confirmed every commit: none is skipped or comes twice."""

import asyncio
from pathlib import Path

import pytest

from busyapi.archive.holders import read_holders
from busyapi.commit.pending import IdempotencyKey
from busyapi.flusher.accept_primary import accept_primary
from busyapi.flusher.seed import REPLACED, WITHOUT_JUMP
from busyapi.ids import Seq
from testkit.archive_reader import read_archive
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    open_archive,
    poll_until,
    run_committer,
    run_flusher,
    seed_once,
)
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until

STATE = "busyapi:{0}:state"
KEY = IdempotencyKey("a", "body")


class Chain:
    """A primary, the replica that replaces it, and the replica of that one."""

    def __init__(self, trio: Trio) -> None:
        self.old, (self.new, self._last) = trio.primary, trio.replicas
        self.archive, self.where = trio.archive, trio.where
        self.new_where = endpoint_of(self.new)
        self._last.command("REPLICAOF", "127.0.0.1", self.new.port)
        wait_until(lambda: count_online(self.new) == 1, "the last one to follow")

    async def replace(self, *, with_more: bool) -> None:
        """Archive usage 1, which both have, and promote the replica.

        `with_more` also archives usage 2, which the replica lacks, as before a loss of the primary.
        """
        flusher = make_flusher(self.where, self.archive, tier="replicated")
        async with (
            run_flusher(flusher),
            run_committer(self.where, tier="replicated") as committer,
            # It waits for no replica.
            run_committer(self.where, tier="fsync") as unconfirmed,
        ):
            assert await committer.post(b"{}") == 1
            await poll_until(lambda: len(read_holders(self.archive / "p00").processes) == 2, "both")
            await unconfirmed.wait_until_ready()
            await poll_until(lambda: flusher.writer and flusher.writer.cursor == 1, "the archive")
            self.new.command("REPLICAOF", "NO", "ONE")
            if with_more:
                assert await unconfirmed.post(b"{}", key=KEY) == 2
                await poll_until(lambda: flusher.writer and flusher.writer.cursor == 2, "it")
        wait_until(lambda: count_online(self.new) == 1, "the last one to be back")
        assert self.new.client().get("busyapi:{0}:seq") == "1"

    async def seed(self) -> str:
        """Seed the new primary, as its flusher does at its start."""
        self.new.client().delete("busyapi:{0}:lease")  # of the flusher that was on the old one
        return await seed_once(self.new_where, self.archive, tier="replicated")

    async def post(self, key: IdempotencyKey | None = None) -> int:
        """Store a usage on the new primary; the result is negative if it was stored before."""
        async with run_committer(self.new_where, tier="replicated") as committer:
            await committer.wait_until_ready()
            return await committer.post(b"{}", key=key)

    def epoch(self) -> object:
        """Return the epoch in the record of the new primary."""
        return self.new.client().hget(STATE, "epoch")


@pytest.fixture
def chain(trio: Trio) -> Chain:
    """Servers of which the second replaces the first."""
    return Chain(trio)


def count_gaps(archive: Path) -> int:
    """Return how many gaps an archive records."""
    return len(read_archive(archive).partition(0).gaps)


async def test_ids_and_epoch_continue_on_a_server_that_has_everything(chain: Chain) -> None:
    await chain.replace(with_more=False)
    epoch = chain.epoch()
    assert await chain.seed() == REPLACED
    # Under the same epoch committers retry what the former primary did not answer.
    assert chain.epoch() == epoch
    assert await chain.post() == 2
    assert count_gaps(chain.archive) == 0


async def test_usage_that_only_the_archive_has_keeps_its_id_and_is_not_stored_again(
    chain: Chain,
) -> None:
    await chain.replace(with_more=True)
    epoch = chain.epoch()
    assert await chain.seed() == REPLACED
    assert chain.epoch() not in {epoch, None}
    assert await chain.post(KEY) == -2
    assert await chain.post() == 3
    assert count_gaps(chain.archive) == 0


async def test_stride_that_only_the_archive_has_counts_under_a_new_epoch(chain: Chain) -> None:
    """The primary was lost after its flusher had widened the stride on disk."""
    await chain.replace(with_more=False)
    epoch = chain.epoch()
    writer = open_archive(chain.archive)
    writer.update_identity(strides=writer.identity.strides.widen(Seq(2), 2))
    writer.close()
    assert await chain.seed() == REPLACED
    assert chain.epoch() not in {epoch, None}
    assert chain.new.client().hget(STATE, "strides") == "1 1:1 2:2"
    assert await chain.post() == 2
    assert count_gaps(chain.archive) == 0


async def test_ids_continue_if_the_primary_was_lost_in_a_pause(chain: Chain) -> None:
    await chain.replace(with_more=False)
    client = chain.new.client()
    client.hset(STATE, "paused", client.hget(STATE, "epoch"))
    client.hdel(STATE, "epoch")
    assert await chain.seed() == REPLACED
    assert await chain.post() == 2
    assert count_gaps(chain.archive) == 0


async def test_ids_jump_if_the_process_restarted(chain: Chain) -> None:
    await chain.replace(with_more=False)
    chain.new.kill9()
    chain.new.start()
    chain.new.command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: count_online(chain.new) == 1, "the last one to be back")
    assert await chain.seed() not in WITHOUT_JUMP
    assert await chain.post() > 1000
    assert count_gaps(chain.archive) == 1


async def test_ids_jump_on_a_primary_that_an_operator_accepted(chain: Chain) -> None:
    await chain.replace(with_more=False)
    await asyncio.to_thread(accept_primary, chain.new_where, chain.archive, 0, confirmed=True)
    assert await chain.seed() not in WITHOUT_JUMP
    assert await chain.post() > 1000
