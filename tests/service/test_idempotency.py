"""An Idempotency-Key holds for its time, whatever becomes of Redis and of its clock."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.idempotency_log import IdempotencyLog, list_parts, read_part
from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import (
    IdempotencyKeyConflict,
    IdempotencyKeysFull,
    OutcomeUnknown,
    RedisUnavailable,
)
from busyapi.flusher.idempotency import GENERATIONS_PER_TTL
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq
from busyapi.sizing.costs import REDIS_KEY_BYTES
from busyapi.stream.idempotency import IdempotencyStore
from testkit.in_process import CommitterHarness, gather_results, poll_until, run_flusher
from testkit.in_process_stack import BOUND, KEYS, InProcessStack
from testkit.servers import FLAVOURS, Flavour, Server


@pytest.fixture
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    flavour: Flavour = getattr(request, "param", "valkey")
    monkeypatch.setattr("busyapi.flusher.idempotency.ROTATE_INTERVAL_SECONDS", 0.1)
    with Server(tmp_path / "server", flavour) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def key(name: str, body: str = "body") -> IdempotencyKey:
    return IdempotencyKey(name, body, f"old-{name}")


def parts(site: InProcessStack) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted((site.archive / "p00" / "keys").iterdir())
    return []


def archived_keys(site: InProcessStack) -> list[tuple[str, int]]:
    """Return the keys in the archive's files, and the last seq of each."""
    found = [each for part in list_parts(site.archive / "p00", 0) for each in read_part(part)]
    return [(each.key_digest, each.last_seq) for each in found if each]


async def retried(committer: CommitterHarness, *lines: bytes, key: IdempotencyKey) -> int:
    """Post as a device does that was told "unknown": again."""
    for _ in range(3):
        (answer,) = await gather_results([committer.post(*lines, key=key)])
        if not isinstance(answer, OutcomeUnknown):
            break
    assert isinstance(answer, int), answer
    return answer


def wipe(site: InProcessStack) -> None:
    site.server.stop()
    site.server.wipe()
    site.server.start()


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_key_outlives_the_loss_of_redis(site: InProcessStack) -> None:
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", b"2", key=key("k"))]) == [2]
        await site.wait_until_archived(2)
        assert archived_keys(site) == [("k", 2)]
        wipe(site)
        assert await retried(committer, b"1", b"2", key=key("k")) == -2
        (reused,) = await gather_results([committer.post(b"3", key=key("k", "another"))])
        assert isinstance(reused, IdempotencyKeyConflict)
        # And again: what was given back is not written twice.
        wipe(site)
        assert await retried(committer, b"1", b"2", key=key("k")) == -2
        new = await retried(committer, b"3", key=key("new"))
        await site.wait_until_archived(new)
    assert site.read_archived_ids() == [1, 2, new]
    assert archived_keys(site) == [("k", 2), ("new", new)]


@pytest.mark.parametrize("site", FLAVOURS, indirect=True)
async def test_key_outlives_a_server_that_lacks_the_tail(site: InProcessStack) -> None:
    """As a replica that is promoted without it; the flusher had archived the tail."""
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("both"))]) == [1]
        await site.wait_until_archived(1)
        copy = site.copy_data()
        assert await gather_results([committer.post(b"2", key=key("tail"))]) == [2]
        await site.wait_until_archived(2)
        site.server.stop()
        site.restore_data(copy)
        site.server.start()
        assert await retried(committer, b"2", key=key("tail")) == -2
        assert await retried(committer, b"1", key=key("both")) == -1
    assert site.read_archived_ids() == [1, 2]


async def test_death_while_keys_are_given_back_loses_none(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.flusher.idempotency.RESTORE_BATCH", 2)
    async with site.run() as (_, committer):
        names = [str(each) for each in range(7)]
        first = await gather_results([committer.post(b"1", key=key(each)) for each in names])
        await site.wait_until_archived(7)
    wipe(site)
    give = IdempotencyStore.restore
    given = 0

    async def once(*args: Any) -> None:
        nonlocal given
        given += 1
        if given == 2:
            raise RedisUnavailable
        await give(*args)

    monkeypatch.setattr(IdempotencyStore, "restore", once)
    async with site.run() as (_, committer):
        assert given > 4
        again = await gather_results([committer.post(b"1", key=key(each)) for each in names])
        assert [-each for each in again if isinstance(each, int)] == first


async def test_key_whose_usages_redis_lost_is_free_again(site: InProcessStack) -> None:
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("old"))]) == [1]
        await site.wait_until_archived(1)
    # The key is on disk and the usage is not: the flusher died between the two.
    log = IdempotencyLog.recover(site.archive / "p00", 0, Seq(1), [])
    log.append(
        [
            IdempotencyRecord(Seq(1), 1, 1, "old", "body"),
            IdempotencyRecord(Seq(3), 2, 1, "lost", "body"),
        ]
    )
    log.close()
    wipe(site)
    async with site.run() as (_, committer):
        (seq,) = await gather_results([committer.post(b"1", b"2", key=key("lost"))])
        assert isinstance(seq, int)
        assert seq > BOUND
        assert await gather_results([committer.post(b"1", key=key("old"))]) == [-1]


async def test_keys_that_redis_has_and_the_archive_not_are_archived_once(
    site: InProcessStack,
) -> None:
    async with site.run_committer() as committer:
        async with run_flusher(site.make_flusher()):
            assert await gather_results([committer.post(b"1", key=key("a"))]) == [1]
            await site.wait_until_archived(1)
        assert await gather_results([committer.post(b"2", key=key("b"))]) == [2]
        # As a flusher that knows nothing of keys would leave it.
        entries = site.server.command("XRANGE", KEYS.new_idempotency_keys, "-", "+")
        assert [each for each, _ in entries] == ["2-1"]
        async with run_flusher(site.make_flusher()):
            await site.wait_until_archived(2)
            await poll_until(
                lambda: not site.server.command("XLEN", KEYS.new_idempotency_keys),
                "it to be trimmed",
            )
    assert archived_keys(site) == [("a", 1), ("b", 2)]


async def test_key_files_with_a_torn_end_and_damage_give_back_the_rest(
    site: InProcessStack, capsys: pytest.CaptureFixture[str]
) -> None:
    async with site.run() as (_, committer):
        futures = [committer.post(b"1", key=key(each)) for each in ("a", "b", "c")]
        assert sorted(await gather_results(futures)) == [1, 2, 3]  # type: ignore[type-var]
        await site.wait_until_archived(3)
    (part,) = parts(site)
    first, second, third = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(
        first + second.replace(b" ", b"-", 3) + b"x" * 5000 + b"\n" + third + third[:9]
    )
    wipe(site)
    async with site.run() as (_, committer):
        for name, line in (("a", first), ("c", third)):
            last = int(line.split()[1])
            assert await gather_results([committer.post(b"1", key=key(name))]) == [-last]
        (again,) = await gather_results([committer.post(b"1", key=key("b"))])
        assert isinstance(again, int)
        assert again > BOUND
    assert "idempotency_log_damaged" in capsys.readouterr().out


async def test_key_lives_for_its_time_and_no_more_than_a_third_longer(site: InProcessStack) -> None:
    seconds = 3.0
    clock = asyncio.get_running_loop().time
    async with site.run(key_seconds=seconds) as (_, committer):
        began = clock()
        assert await gather_results([committer.post(b"1", key=key("k"))]) == [1]
        while await gather_results([committer.post(b"1", key=key("k"))]) == [-1]:
            assert clock() - began < 2 * seconds
            await asyncio.sleep(0.05)
        lived = clock() - began
        assert seconds <= lived <= seconds * (1 + 1 / GENERATIONS_PER_TTL) + 1.5
        await poll_until(
            lambda: len(parts(site)) <= GENERATIONS_PER_TTL + 1, "the old files to be deleted"
        )


async def test_restarted_flusher_counts_on(site: InProcessStack) -> None:
    seconds = 3.0
    clock = asyncio.get_running_loop().time
    async with site.run_committer() as committer:
        began = clock()
        lived = 0.0
        while not lived:
            async with run_flusher(site.make_flusher(key_seconds=seconds)):
                await asyncio.sleep(0.7)
                answer = await gather_results([committer.post(b"1", key=key("k"))])
                if answer not in ([-1], [1]):
                    lived = clock() - began
            assert clock() - began < 3 * seconds
        assert lived >= seconds


async def test_over_the_budget_new_keys_alone_are_refused(site: InProcessStack) -> None:
    async with site.run(most_keys=5, key_seconds=3.0) as (_, committer):
        futures = [committer.post(b"1", key=key(str(n))) for n in range(7)]
        answers = await gather_results(futures)
        assert [isinstance(each, IdempotencyKeysFull) for each in answers] == [False] * 5 + [
            True
        ] * 2
        assert await gather_results([committer.post(b"2")]) == [6]
        assert await gather_results([committer.post(b"1", key=key("0"))]) == [-1]

        async def taken() -> bool:
            return isinstance((await gather_results([committer.post(b"1", key=key("x"))]))[0], int)

        async with asyncio.timeout(10):
            while not await taken():  # noqa: ASYNC110 - it asks a server
                await asyncio.sleep(0.1)


async def test_memory_of_redis_decides_the_budget_if_no_setting_does(site: InProcessStack) -> None:
    site.server.client().config_set("maxmemory", "24mb")
    async with site.run(most_keys=0):
        share = 24 * 2**20 // 2 // REDIS_KEY_BYTES
        await poll_until(lambda: site.read_state().get("keys_max") == str(share), "the budget")


async def test_keyed_entry_says_its_version_and_one_without_is_read(site: InProcessStack) -> None:
    async with site.run_committer() as committer:
        async with run_flusher(site.make_flusher()):
            assert await gather_results([committer.post(b"1", key=key("a"))]) == [1]
            await site.wait_until_archived(1)
        assert await gather_results([committer.post(b"2", b"3", key=key("b"))]) == [3]
        ((entry_id, fields),) = site.server.command("XRANGE", KEYS.new_idempotency_keys, "-", "+")
        ((field, value),) = fields.items()
        assert (entry_id, field) == ("3-2", "k")
        version, received, *words = value.split(" ")
        assert (version, words) == ("1", ["b", "body"])
        site.server.command("DEL", KEYS.new_idempotency_keys)
        site.server.command(
            "XADD", KEYS.new_idempotency_keys, entry_id, field, f"{received} b body"
        )
        async with run_flusher(site.make_flusher()):
            await site.wait_until_archived(3)
    assert archived_keys(site) == [("a", 1), ("b", 3)]


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("k", "2 1478009511000 b body of-2", "version 2"),
        ("k", "2", "version 2"),
        ("k2", "1 1478009511000 b body", "an unknown field"),
    ],
)
async def test_keyed_entry_of_another_version_halts_and_waits_for_that_version(
    site: InProcessStack, monkeypatch: pytest.MonkeyPatch, field: str, value: str, what: str
) -> None:
    monkeypatch.setattr("busyapi.flusher.loop.HALT_RETRY_SECONDS", 0.2)
    async with site.run() as (flusher, committer):
        assert await gather_results([committer.post(b"1", key=key("a"))]) == [1]
        await site.wait_until_archived(1)
        site.server.command("XADD", KEYS.new_idempotency_keys, "2-1", field, value)
        assert await gather_results([committer.post(b"2")]) == [2]
        await poll_until(
            lambda: f"seq 2 has {what}" in flusher.not_ready_reason, "the flusher to halt"
        )
        assert flusher._metrics.halted._value.get() == 1
        # Neither the key nor its usages are passed over or trimmed.
        assert site.read_archived_ids() == [1]
        assert site.server.command("XRANGE", KEYS.new_idempotency_keys, "2", "2")
        # As the version that wrote it would: it takes what it knows.
        site.server.command("DEL", KEYS.new_idempotency_keys)
        site.server.command("XADD", KEYS.new_idempotency_keys, "2-1", "k", "1 1478009511000 b body")
        await site.wait_until_archived(2)
    assert archived_keys(site) == [("a", 1), ("b", 2)]


async def test_fresh_install_forgets_what_another_left(site: InProcessStack) -> None:
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("k"))]) == [1]
        await site.wait_until_archived(1)
    site.server.command("DEL", KEYS.state, KEYS.seq, KEYS.stream, KEYS.lease)
    site.archive = site.archive.with_name("another")
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("k"))]) == [1]


async def test_server_that_an_older_flusher_prepared_is_given_its_keys(
    site: InProcessStack,
) -> None:
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("k"))]) == [1]
        await site.wait_until_archived(1)
    # 0.2.0 would have prepared an empty server without them, under an epoch of its own.
    site.server.command("DEL", *KEYS.idempotency_hashes)
    site.server.command("HSET", KEYS.state, "epoch", "of-another")
    async with site.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=key("k"))]) == [-1]
        assert site.read_state()["epoch"] == "of-another"
