"""The `replicated` tier: no answer before a replica has the usage."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import DurabilityNotMet, OutcomeUnknown
from busyapi.stream.keys import PartitionKeys
from testkit.in_process import endpoint_of, gather_results, poll_until, run_committer, seed_once
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.waiting import wait_until

KEYS = PartitionKeys(0)
UNPROMOTABLE = ["replica-priority 0"]


class Pair:
    """A seeded primary and its replica."""

    def __init__(self, folder: Path, flavour: Flavour) -> None:
        self.primary = Server(folder / "primary", flavour, config=UNPROMOTABLE)
        self.replica = Server(
            folder / "replica", flavour, config=UNPROMOTABLE, replica_of=self.primary
        )
        self.where = endpoint_of(self.primary)

    def entries(self, server: Server) -> list[str]:
        return [entry_id for entry_id, _ in server.command("XRANGE", KEYS.stream, "-", "+")]


def count_online_replicas(primary: Server) -> int:
    """Return how many replicas the primary lists as in sync."""
    values = primary.replication().values()
    return sum(isinstance(value, dict) and value["state"] == "online" for value in values)


@pytest.fixture
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    flavour: Flavour = getattr(request, "param", "valkey")
    monkeypatch.setattr("busyapi.stream.session.REPLICA_WAIT_MS", 300)
    pair = Pair(tmp_path, flavour)
    with pair.primary, pair.replica:
        wait_until(lambda: count_online_replicas(pair.primary) == 1, "the replica to be online")
        await seed_once(pair.where, tmp_path / "archive", tier="replicated")
        yield pair


async def test_answered_usage_is_on_the_replica(pair: Pair) -> None:
    async with run_committer(pair.where, tier="replicated") as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", b"{}") == 2
        assert pair.entries(pair.replica) == ["2-2"]
        # The value is negative if the committer had to retry it.
        assert abs(await committer.post(b"{}", key=IdempotencyKey("a", "body"))) == 3
        assert pair.entries(pair.replica) == ["2-2", "3-1"]


@pytest.mark.parametrize("pair", FLAVOURS, indirect=True)
@pytest.mark.parametrize("key", [None, IdempotencyKey("a", "body")])
async def test_retry_is_not_confirmed_by_a_replica_that_lacks_it(
    pair: Pair, key: IdempotencyKey | None
) -> None:
    # The retry is the first command on its connection. If it wrote nothing, WAIT would have
    # nothing to wait for and would count the paused replica.
    async with run_committer(pair.where, tier="replicated", deadline=5.0) as committer:
        await committer.wait_until_ready()
        pair.replica.pause()
        answers = await gather_results([committer.post(b"{}", key=key)])
        assert isinstance(answers[0], OutcomeUnknown)
        assert pair.entries(pair.primary) == ["1-1"]
        assert len(committer.failures.errors) >= 2  # it was sent again at least once
        pair.replica.resume()


async def test_paused_replica_delays_the_answer_and_the_usage_is_stored_once(pair: Pair) -> None:
    async with run_committer(pair.where, tier="replicated") as committer:
        await committer.wait_until_ready()
        pair.replica.pause()
        futures = [committer.post(b"{}"), committer.post(b"{}", key=IdempotencyKey("a", "body"))]
        await poll_until(lambda: len(committer.failures.errors) >= 2, "two tries without a replica")
        assert not any(future.done() for future in futures)
        pair.replica.resume()
        assert sorted(abs(seq) for seq in await asyncio.gather(*futures)) == [1, 2]
        assert pair.entries(pair.replica) == ["1-1", "2-1"]


async def test_wait_for_a_replica_is_reported(pair: Pair) -> None:
    async with run_committer(pair.where, tier="replicated") as committer:
        await committer.wait_until_ready()
        await committer.post(b"{}")
        pair.replica.pause()
        slow = committer.post(b"{}")
        await asyncio.sleep(0.2)  # below REPLICA_WAIT_MS
        pair.replica.resume()
        await slow
        quick, waited = committer.failures.confirmations
        assert waited > max(0.1, quick)


async def test_commit_that_needs_no_replica_reports_no_wait(pair: Pair) -> None:
    async with run_committer(pair.where) as committer:
        await committer.wait_until_ready()
        await committer.post(b"{}")
        assert committer.failures.confirmations == []


async def test_without_a_replica_nothing_is_stored_and_the_error_gives_the_reason(
    pair: Pair, tmp_path: Path
) -> None:
    async with run_committer(pair.where, tier="replicated", deadline=3.0) as committer:
        await committer.wait_until_ready()
        pair.replica.kill9()
        sent = committer.post(b"{}")
        await poll_until(
            lambda: committer.committer.durability_error, "the committer to be refused"
        )
        waiting = committer.post(b"{}")
        answers = await gather_results([sent, waiting])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], DurabilityNotMet)
        assert "must confirm and is not connected" in str(answers[1])
        pair.replica.start()
        await poll_until(
            lambda: "has not inspected it yet" in str(committer.committer.durability_error),
            "the connection to be noticed",
        )
        await seed_once(pair.where, tmp_path / "archive", tier="replicated")
        await committer.wait_until_ready()
        assert await committer.post(b"{}") == 2
        assert pair.entries(pair.replica) == ["1-1", "2-1"]
