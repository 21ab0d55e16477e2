"""Each script is one atomic step: a refusal changes nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from secrets import token_hex
from typing import Any

import pytest

from busyapi.commit.in_flight import classify_refusal
from busyapi.errors import (
    LeaseLost,
    NotSeeded,
    OutcomeUnknown,
    PartitionMismatch,
    PartitionPaused,
)
from busyapi.ids import Seq
from busyapi.stream.connection import ServerError, make_evalsha
from busyapi.stream.durability import DurabilityInspector
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import decode_entry, encode_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replicas import ReplicaView
from busyapi.stream.scripts import REVOKE_SEEN_EPOCH
from busyapi.stream.servers import RedisServers
from busyapi.stream.session import CommitCommand, CommitResult, Session
from busyapi.stream.state import continue_epoch, is_same_history, record_strides
from busyapi.strides import Strides
from testkit.in_process import endpoint_of
from testkit.servers import Server

KEYS = PartitionKeys(0)
BOUND = 10


def make_batch(
    number: int, usages: int = 1, *, committer: str = "committer", name: str = ""
) -> CommitCommand:
    lines = [b'{"n":"%b-%d-%d"}' % (name.encode(), number, n) for n in range(usages)]
    return CommitCommand(
        encode_entry(lines, 1), usages, KEYS.committer(committer), "batch", str(number)
    )


def make_keyed(key: str, body: str, usages: int = 1, token: str = "") -> CommitCommand:
    value = encode_entry([b"{}"] * usages, 1)
    legacy = KEYS.legacy_idempotency_key(f"old-{key}")
    return CommitCommand(
        value, usages, legacy, "key", body, key_digest=key, request_token=token, received_ms=1
    )


def _to_signed(result: CommitResult) -> int:
    return -result.last if result.replayed else result.last


class Seeded:
    """A partition that a flusher has seeded, with one committer's session."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.endpoint: Endpoint = endpoint_of(server)
        self.owner = OwnedPartition(RedisServers(only=self.endpoint), 0, "fsync", "archive-a")
        self.session: Session
        self.highest = Seq(0)

    async def start(self, seq: int = 0, bound: int = BOUND) -> None:
        await self.owner.connect()
        await self.owner.acquire_lease()
        await self.reseed(seq, bound=bound)
        self.session = await self.open()
        for committer in "committer", "other":
            await self.session.register(KEYS.committer(committer))

    async def reseed(self, seq: int, **changes: Any) -> None:
        record = {
            "run_id": (await self.owner.read_snapshot()).server.server_id,
            "partitions": 1,
            "bound": BOUND,
            "skipped": 0,
            "doubt": "",
            "epoch": token_hex(8),
        }
        await self.owner.seed(Seq(seq), record | changes, seq=Seq(seq))

    async def open(self, highest: int = 0, partitions: int = 1) -> Session:
        return await Session.open(
            self.endpoint, 0, partitions, DurabilityInspector("fsync", KEYS), Seq(highest)
        )

    async def commit(self, *commands: CommitCommand) -> list[Any]:
        """Commit, and return each reply; of a success the last seq, negative if replayed."""
        replies = await self.session.wait_replies(self.session.send(list(commands), self.highest))
        return [
            _to_signed(reply) if isinstance(reply, CommitResult) else reply for reply in replies
        ]

    async def commit_refused(self, command: CommitCommand) -> str:
        """Commit, check that it is refused and changes nothing, and return the refusal's code."""
        before = self.read_all()
        (reply,) = await self.commit(command)
        assert isinstance(reply, ServerError), reply
        assert self.read_all() == before
        return reply.code

    def read_all(self) -> dict[str, Any]:
        """Return everything in the server by key."""
        values: dict[str, Any] = {}
        for key in self.server.command("KEYS", "busyapi:*"):
            match self.server.command("TYPE", key):
                case "string":
                    values[key] = self.server.command("GET", key)
                case "hash":
                    values[key] = self.server.command("HGETALL", key)
                case "stream":
                    values[key] = self.server.command("XRANGE", key, "-", "+")
        return values

    def entries(self) -> list[str]:
        return [entry_id for entry_id, _ in self.server.command("XRANGE", KEYS.stream, "-", "+")]

    async def close(self) -> None:
        await self.owner.close()
        if hasattr(self, "session"):
            await self.session.close()


@pytest.fixture
async def bare(any_server: Server) -> AsyncIterator[Seeded]:
    """A fresh server."""
    seeded = Seeded(any_server)
    yield seeded
    await seeded.close()


@pytest.fixture
async def seeded(bare: Seeded) -> Seeded:
    await bare.start()
    return bare


async def test_commit_is_one_entry_with_its_seqs_in_its_id(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 3)) == [3]
    assert await seeded.commit(make_batch(2, 2), make_keyed("k", "b")) == [5, 6]
    assert seeded.entries() == ["3-3", "5-2", "6-1"]
    assert seeded.server.client().get(KEYS.seq) == "6"
    entries = await seeded.owner.read(Seq(0))
    assert [(entry.first, entry.last) for entry in entries] == [(1, 3), (4, 5), (6, 6)]
    assert decode_entry(entries[0]).lines == [b'{"n":"-1-0"}', b'{"n":"-1-1"}', b'{"n":"-1-2"}']


async def test_retry_of_a_batch_number_gets_its_answer_and_stores_nothing(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 3)) == [3]
    assert await seeded.commit(make_batch(1, committer="other")) == [4]
    before = seeded.read_all()
    assert await seeded.commit(make_batch(1, 3), make_batch(1, 3)) == [-3, -3]
    assert seeded.read_all() == before


async def test_retry_on_a_new_connection_gets_its_answer(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 2)) == [2]
    await seeded.session.close()
    seeded.session = await seeded.open(2)
    assert await seeded.commit(make_batch(1, 2)) == [-2]
    assert seeded.entries() == ["2-2"]


async def test_retry_gets_its_answer_even_if_the_buffer_is_full_by_then(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, BOUND)) == [BOUND]
    assert await seeded.commit(make_batch(1, BOUND)) == [-BOUND]
    assert await seeded.commit_refused(make_batch(2)) == "FULL"


async def test_late_old_batch_is_never_stored(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(2)) == [1]
    assert await seeded.commit_refused(make_batch(1)) == "STALE"
    assert await seeded.commit(make_batch(10), make_batch(11)) == [2, 3]
    # Batch numbers compare as numbers; as text "9" would be greater than "11".
    assert await seeded.commit_refused(make_batch(9)) == "STALE"


async def test_commit_under_another_epoch_is_refused(seeded: Seeded) -> None:
    await seeded.reseed(0)
    assert await seeded.commit_refused(make_batch(1)) == "EPOCH"
    assert await seeded.commit_refused(make_keyed("k", "b")) == "EPOCH"


async def test_commit_without_an_epoch_or_a_counter_is_refused(seeded: Seeded) -> None:
    seeded.server.client().delete(KEYS.seq)
    assert await seeded.commit_refused(make_batch(1)) == "EPOCH"
    await seeded.owner.revoke_epoch()
    assert await seeded.commit_refused(make_batch(1)) == "EPOCH"


async def test_buffer_is_full_at_the_bound_exactly(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, BOUND - 1)) == [BOUND - 1]
    assert await seeded.commit_refused(make_batch(2, 2)) == "FULL"
    assert await seeded.commit(make_batch(3)) == [BOUND]
    assert await seeded.commit_refused(make_batch(4)) == "FULL"
    assert await seeded.commit_refused(make_keyed("k", "b")) == "FULL"
    # The 9 usages of the first entry are archived, so there is room for 9, not for 10.
    assert await seeded.owner.publish(Seq(BOUND - 1)) == BOUND
    assert seeded.entries() == [f"{BOUND}-1"]
    assert await seeded.commit_refused(make_batch(5, 10)) == "FULL"
    assert await seeded.commit(make_batch(6, 9)) == [2 * BOUND - 1]


async def test_key_with_the_same_body_gets_the_same_answer(seeded: Seeded) -> None:
    assert await seeded.commit(make_keyed("k", "body", 2)) == [2]
    before = seeded.read_all()
    assert await seeded.commit(make_keyed("k", "body", 2)) == [-2]
    assert seeded.read_all() == before
    assert await seeded.commit(make_keyed("other", "body")) == [3]
    # Keys have no TTL in Redis: the flusher clears the hashes by its own clock.
    for name in seeded.server.command("KEYS", "*key*"):
        assert seeded.server.command("PTTL", name) == -1


async def test_key_with_another_body_is_refused(seeded: Seeded) -> None:
    assert await seeded.commit(make_keyed("k", "body")) == [1]
    assert await seeded.commit_refused(make_keyed("k", "another")) == "KEYREUSED"


async def test_own_retry_of_a_request_is_not_a_replay(seeded: Seeded) -> None:
    assert await seeded.commit(make_keyed("k", "body", token="a1")) == [1]
    assert await seeded.commit(make_keyed("k", "body", token="a1")) == [1]
    assert await seeded.commit(make_keyed("k", "body", token="a2"), make_keyed("k", "body")) == [
        -1,
        -1,
    ]
    # A request without a token has no own retry.
    assert await seeded.commit(make_keyed("other", "body")) == [2]
    assert await seeded.commit(make_keyed("other", "body")) == [-2]


async def test_new_key_leaves_an_entry_for_the_archive_and_a_retry_none(seeded: Seeded) -> None:
    assert await seeded.commit(
        make_batch(1, 2), make_keyed("k", "body", 3), make_keyed("k", "body", 3)
    ) == [
        2,
        5,
        -5,
    ]
    entries = seeded.server.command("XRANGE", KEYS.new_idempotency_keys, "-", "+")
    assert entries == [("5-3", {"k": "1 1 k body"})]


async def test_key_that_0_2_0_stored_is_known_by_the_same_body_alone(seeded: Seeded) -> None:
    client = seeded.server.client()
    client.set(KEYS.legacy_idempotency_key("old-k"), "body 7", ex=100)
    assert await seeded.commit(make_keyed("k", "body")) == [-7]
    assert 90 < client.ttl(KEYS.legacy_idempotency_key("old-k")) <= 100
    # 0.2.0 had one name space for all devices, so another body may be from another device.
    assert await seeded.commit(make_keyed("k", "another")) == [1]


async def test_budget_refuses_only_new_keys(seeded: Seeded) -> None:
    seeded.server.client().hset(KEYS.state, "keys_max", 2)
    assert await seeded.commit(make_keyed("a", "body"), make_keyed("b", "body")) == [1, 2]
    assert await seeded.commit_refused(make_keyed("c", "body")) == "KEYS"
    assert await seeded.commit(make_keyed("a", "body"), make_batch(1)) == [-1, 3]
    # Keys in every hash count, and a key is known in any of them.
    client = seeded.server.client()
    client.hset(KEYS.state, "keys_generation", 6)
    client.delete(KEYS.idempotency_hashes[0])
    client.hset(KEYS.idempotency_hashes[1], "x", "body 1 ")
    assert await seeded.commit(make_keyed("c", "body")) == [4]
    assert client.hkeys(KEYS.idempotency_hashes[2]) == ["c"]
    assert await seeded.commit(make_keyed("x", "body"), make_keyed("c", "body")) == [-1, -4]
    assert await seeded.commit_refused(make_keyed("x", "another")) == "KEYREUSED"


async def test_counter_that_went_back_makes_the_commit_fail_with_nothing_written(
    seeded: Seeded,
) -> None:
    assert await seeded.commit(make_batch(1, 3), make_batch(2, 3)) == [3, 6]
    seeded.server.client().set(KEYS.seq, 3)
    for command in (make_batch(3, 3), make_keyed("k", "b"), make_batch(4)):
        before = seeded.read_all()
        (reply,) = await seeded.commit(command)
        assert "equal or smaller" in str(reply)
        assert seeded.read_all() == before


async def test_commit_below_what_the_committer_has_received_is_refused(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 3), make_batch(2, 3)) == [3, 6]
    # As on another server that lacks the tail but has the same epoch.
    seeded.server.client().set(KEYS.seq, 3)
    seeded.server.client().delete(KEYS.stream)
    seeded.highest = Seq(6)
    assert await seeded.commit_refused(make_batch(3)) == "EPOCH"
    assert await seeded.commit_refused(make_keyed("k", "b")) == "EPOCH"
    seeded.highest = Seq(3)
    assert await seeded.commit(make_batch(3)) == [4]


async def test_full_memory_refuses_a_commit_before_anything_is_written(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1)) == [1]
    seeded.server.client().config_set("maxmemory", 1)
    assert await seeded.commit_refused(make_batch(2)) == "OOM"
    assert await seeded.commit_refused(make_keyed("k", "b")) == "OOM"
    seeded.server.client().config_set("maxmemory", 0)
    assert await seeded.commit(make_batch(3)) == [2]


async def test_flusher_can_lease_seed_and_trim_while_the_memory_is_full(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1), make_batch(2)) == [1, 2]
    seeded.server.client().config_set("maxmemory", 1)
    await seeded.owner.release()
    owner = OwnedPartition(RedisServers(only=seeded.endpoint), 0, "fsync", "archive-a")
    await owner.connect()
    await owner.acquire_lease()
    await owner.record_doubt("a test says so")
    await owner.seed(Seq(0), {"doubt": ""})
    assert await owner.publish(Seq(1)) == 2
    assert seeded.entries() == ["2-1"]
    await owner.close()


async def test_large_seqs_stay_whole_numbers(bare: Seeded) -> None:
    high = 9_007_199_254_000_000  # a double's %g would be 9.0072e+15
    await bare.start(high)
    assert await bare.commit(make_batch(1, 2)) == [high + 2]
    assert await bare.commit(make_batch(1, 2)) == [-high - 2]
    assert await bare.commit(make_keyed("k", "b")) == [high + 3]
    assert await bare.commit(make_keyed("k", "b")) == [-high - 3]
    client = bare.server.client()
    assert client.get(KEYS.seq) == f"{high + 3}"
    assert client.get(KEYS.committer("committer")) == f"1 {high + 2}"
    assert bare.entries() == [f"{high + 2}-2", f"{high + 3}-1"]
    assert await bare.owner.renew_lease() == high + 3
    assert await bare.owner.publish(Seq(high + 2)) == high + 3
    assert bare.entries() == [f"{high + 3}-1"]
    assert client.hget(KEYS.state, "archived") == f"{high + 2}"
    assert [entry.first for entry in await bare.owner.read(Seq(high + 2))] == [high + 3]


async def test_publish_renews_the_lease_and_never_goes_back(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1), make_batch(2)) == [1, 2]
    client = seeded.server.client()
    client.pexpire(KEYS.lease, 3_000)
    assert await seeded.owner.publish(Seq(2)) == 2
    assert client.pttl(KEYS.lease) > 5_000
    assert await seeded.owner.publish(Seq(1)) == 2
    assert client.hget(KEYS.state, "archived") == "2"


async def test_publish_on_a_partition_without_epoch_or_counter_asks_for_seeding(
    seeded: Seeded,
) -> None:
    seeded.server.client().delete(KEYS.seq)
    with pytest.raises(NotSeeded):
        await seeded.owner.publish(Seq(0))
    await seeded.reseed(0)
    await seeded.owner.revoke_epoch()
    with pytest.raises(NotSeeded):
        await seeded.owner.publish(Seq(0))


# --- seeding, and the check of a connection ------------------------------------------------


async def test_seed_trims_what_the_archive_has_and_keeps_the_rest(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 2), make_batch(2, 2)) == [2, 4]
    await seeded.owner.seed(Seq(2), {"skipped": 1})
    assert seeded.entries() == ["4-2"]
    assert await seeded.commit(make_batch(3)) == [5]


async def test_revoke_removes_only_the_epoch_that_was_seen(seeded: Seeded) -> None:
    old = seeded.session.epoch
    await seeded.reseed(0)
    newer = await seeded.open()
    await seeded.session.revoke_epoch()
    assert await newer.wait_replies(newer.send([make_batch(1)], Seq(0))) == [
        CommitResult(1, replayed=False)
    ]
    connection = await seeded.endpoint.connect(0)
    assert await connection.execute(*make_evalsha(REVOKE_SEEN_EPOCH, [KEYS.state], old)) == 0
    assert (
        await connection.execute(*make_evalsha(REVOKE_SEEN_EPOCH, [KEYS.state], newer.epoch)) == 1
    )
    (reply,) = await newer.wait_replies(newer.send([make_batch(2)], Seq(0)))
    assert isinstance(reply, ServerError)
    assert reply.code == "EPOCH"
    await newer.close()
    await connection.close()


async def test_session_opens_only_on_the_server_that_was_seeded(seeded: Seeded) -> None:
    await seeded.reseed(0, run_id="0" * 40)
    with pytest.raises(NotSeeded, match="not seeded for this server"):
        await seeded.open()
    with pytest.raises(NotSeeded, match="not seeded for this server"):
        await seeded.session.recheck(1, Seq(0))


async def test_session_does_not_open_on_a_partition_never_seeded(bare: Seeded) -> None:
    with pytest.raises(NotSeeded, match="not seeded yet"):
        await bare.open()
    assert bare.read_all() == {}


async def test_session_that_has_received_more_revokes_the_epoch(seeded: Seeded) -> None:
    assert await seeded.commit(make_batch(1, 3)) == [3]
    with pytest.raises(NotSeeded, match="went back"):
        await seeded.open(highest=4)
    assert not seeded.server.client().hexists(KEYS.state, "epoch")
    (reply,) = await seeded.commit(make_batch(2))
    assert reply.code == "EPOCH"


async def test_session_takes_strides_from_the_record_and_refuses_fewer_partitions_than_at_install(
    seeded: Seeded,
) -> None:
    session = await seeded.open(partitions=4)
    assert session.strides == Strides.fixed(1)
    await session.close()
    await seeded.reseed(0, **record_strides(Strides.parse("4 1:4 5001:8")))
    with pytest.raises(PartitionMismatch, match=r"made with 4 partitions.* says 3"):
        await seeded.open(partitions=3)
    with pytest.raises(PartitionMismatch):
        await seeded.session.recheck(3, Seq(0))
    session = await seeded.open(partitions=8)
    assert session.strides.encode() == "4 1:4 5001:8"
    await session.close()
    # 0.2.0 reads only this field, and refuses any number but its own.
    assert seeded.server.client().hget(KEYS.state, "partitions") == "0"


async def test_paused_partition_refuses_commits_and_sessions_until_its_epoch_continues(
    seeded: Seeded,
) -> None:
    epoch = await seeded.owner.revoke_epoch(pause=True)
    assert epoch == seeded.session.epoch
    (reply,) = await seeded.commit(make_batch(1))
    assert reply.code == "EPOCH"
    with pytest.raises(PartitionPaused):
        await seeded.open()
    await seeded.reseed(0, epoch=continue_epoch(epoch), paused="")
    session = await seeded.open()
    assert is_same_history(session.epoch, epoch)
    assert session.epoch != epoch
    await session.close()
    assert await seeded.owner.revoke_epoch() == ""
    with pytest.raises(NotSeeded, match="not seeded yet"):
        await seeded.open()


async def test_pause_ends_if_a_session_has_received_more(seeded: Seeded) -> None:
    """The flusher would continue a paused epoch without a jump of ids."""
    assert await seeded.commit(make_batch(1, 3)) == [3]
    assert await seeded.owner.revoke_epoch(pause=True)
    with pytest.raises(PartitionPaused):
        await seeded.open(highest=3)
    assert seeded.server.client().hget(KEYS.state, "paused")
    with pytest.raises(NotSeeded, match="went back"):
        await seeded.open(highest=4)
    assert not seeded.server.client().hexists(KEYS.state, "paused")


async def test_session_of_another_installation_is_refused(seeded: Seeded) -> None:
    await seeded.reseed(0, installation="one/busyapi")
    own = replace(seeded.endpoint, installation="one/busyapi")
    await (await Session.open(own, 0, 1, DurabilityInspector("fsync", KEYS), Seq(0))).close()
    for other in ("two/busyapi", ""):
        with pytest.raises(NotSeeded, match=f"installation 'one/busyapi'.* says '{other}'"):
            await Session.open(
                replace(seeded.endpoint, installation=other),
                0,
                1,
                DurabilityInspector("fsync", KEYS),
                Seq(0),
            )
    # A partition seeded by an earlier version has no installation; the flusher writes it later.
    await seeded.reseed(0, installation="")
    await (await Session.open(own, 0, 1, DurabilityInspector("fsync", KEYS), Seq(0))).close()


async def test_flusher_that_has_lost_its_lease_deletes_no_keys(seeded: Seeded) -> None:
    assert await seeded.commit(make_keyed("k", "body")) == [1]
    seeded.server.command("SET", KEYS.lease, "archive-b:token")
    with pytest.raises(LeaseLost):
        await seeded.owner.idempotency.delete_all()
    assert await seeded.commit(make_keyed("k", "body")) == [-1]


async def test_retry_of_a_stored_usage_is_answered_when_memory_is_full(seeded: Seeded) -> None:
    assert await seeded.commit(make_keyed("k", "body"), make_batch(1)) == [1, 2]
    seeded.server.command("SET", KEYS.legacy_idempotency_key("old-before"), "body 1", "EX", 60)
    seeded.server.command("CONFIG", "SET", "maxmemory", 1)
    again = make_keyed("k", "body"), make_keyed("before", "body"), make_batch(1)
    assert await seeded.commit(*again) == [-1, -1, -2]
    assert await seeded.commit_refused(make_keyed("new", "body")) == "OOM"
    assert await seeded.commit_refused(make_batch(2)) == "OOM"
    # With replicas to wait for, a retry needs a write, so its outcome is unknown, not refused.
    seeded.session._view = ReplicaView((), "")
    for command in again[:2]:
        (reply,) = await seeded.session._connection.pipeline(
            seeded.session.make_command(command, Seq(0))
        )
        assert isinstance(reply, ServerError), reply
        assert isinstance(classify_refusal(reply, uncertain=False), OutcomeUnknown)


async def test_user_without_the_right_for_keys_stores_nothing_with_a_key(seeded: Seeded) -> None:
    await seeded.commit(make_batch(1))
    seeded.server.command("ACL", "SETUSER", "default", "-hset")
    try:
        assert await seeded.commit_refused(make_keyed("k", "body")) == "KEYRIGHTS"
        assert seeded.server.command("GET", KEYS.seq) == "1"
    finally:
        seeded.server.command("ACL", "SETUSER", "default", "+hset")


@pytest.mark.parametrize("command", [make_batch(1), make_keyed("k", "body")])
async def test_commit_on_a_server_with_another_history_is_refused(
    seeded: Seeded, command: CommitCommand
) -> None:
    seeded.server.command("HSET", KEYS.state, "run_id", "process-history")
    assert await seeded.commit_refused(command) == "EPOCH"


@pytest.mark.parametrize("command", [make_batch(1), make_keyed("k", "body")])
async def test_counter_below_what_the_committer_has_received_is_refused(
    seeded: Seeded, command: CommitCommand
) -> None:
    seeded.highest = Seq(5)
    assert await seeded.commit_refused(command) == "EPOCH"
