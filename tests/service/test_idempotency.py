"""An Idempotency-Key is valid for its whole time, whatever happens to Redis and its clock."""

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
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    flavour: Flavour = getattr(request, "param", "valkey")
    monkeypatch.setattr("busyapi.flusher.idempotency.ROTATE_INTERVAL_SECONDS", 0.1)
    with Server(tmp_path / "server", flavour) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


def make_key(name: str, body: str = "body") -> IdempotencyKey:
    return IdempotencyKey(name, body, f"old-{name}")


def list_log_files(stack: InProcessStack) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted((stack.archive / "p00" / "keys").iterdir())
    return []


def archived_keys(stack: InProcessStack) -> list[tuple[str, int]]:
    """Return the keys in the archive's files and the last seq of each."""
    records = [
        record for part in list_parts(stack.archive / "p00", 0) for record in read_part(part)
    ]
    return [(record.key_digest, record.last_seq) for record in records if record]


async def post_until_known(committer: CommitterHarness, *lines: bytes, key: IdempotencyKey) -> int:
    """Post, and post again while the outcome is unknown, as a device does."""
    for _ in range(3):
        (answer,) = await gather_results([committer.post(*lines, key=key)])
        if not isinstance(answer, OutcomeUnknown):
            break
    assert isinstance(answer, int), answer
    return answer


def wipe(stack: InProcessStack) -> None:
    stack.server.stop()
    stack.server.wipe()
    stack.server.start()


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_key_outlives_the_loss_of_redis(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", b"2", key=make_key("k"))]) == [2]
        await stack.wait_until_archived(2)
        assert archived_keys(stack) == [("k", 2)]
        wipe(stack)
        assert await post_until_known(committer, b"1", b"2", key=make_key("k")) == -2
        (reused,) = await gather_results([committer.post(b"3", key=make_key("k", "another"))])
        assert isinstance(reused, IdempotencyKeyConflict)
        # A second loss: restored keys are not archived twice.
        wipe(stack)
        assert await post_until_known(committer, b"1", b"2", key=make_key("k")) == -2
        new = await post_until_known(committer, b"3", key=make_key("new"))
        await stack.wait_until_archived(new)
    assert stack.read_archived_ids() == [1, 2, new]
    assert archived_keys(stack) == [("k", 2), ("new", new)]


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_key_outlives_a_server_that_lacks_the_tail(stack: InProcessStack) -> None:
    """The server is like a promoted replica without the tail, which the flusher has archived."""
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("both"))]) == [1]
        await stack.wait_until_archived(1)
        copy = stack.copy_data()
        assert await gather_results([committer.post(b"2", key=make_key("tail"))]) == [2]
        await stack.wait_until_archived(2)
        stack.server.stop()
        stack.restore_data(copy)
        stack.server.start()
        assert await post_until_known(committer, b"2", key=make_key("tail")) == -2
        assert await post_until_known(committer, b"1", key=make_key("both")) == -1
    assert stack.read_archived_ids() == [1, 2]


async def test_death_while_keys_are_restored_loses_none(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.flusher.idempotency.RESTORE_BATCH", 2)
    async with stack.run() as (_, committer):
        names = [str(number) for number in range(7)]
        first = await gather_results([committer.post(b"1", key=make_key(name)) for name in names])
        await stack.wait_until_archived(7)
    wipe(stack)
    restore = IdempotencyStore.restore
    calls = 0

    async def restore_or_fail(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RedisUnavailable
        await restore(*args)

    monkeypatch.setattr(IdempotencyStore, "restore", restore_or_fail)
    async with stack.run() as (_, committer):
        assert calls > 4
        again = await gather_results([committer.post(b"1", key=make_key(name)) for name in names])
        assert [-seq for seq in again if isinstance(seq, int)] == first


async def test_key_of_usages_that_redis_lost_is_free_again(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("old"))]) == [1]
        await stack.wait_until_archived(1)
    # The key is on disk and its usage is not: the flusher died between the two writes.
    log = IdempotencyLog.recover(stack.archive / "p00", 0, Seq(1), [])
    log.append(
        [
            IdempotencyRecord(Seq(1), 1, 1, "old", "body"),
            IdempotencyRecord(Seq(3), 2, 1, "lost", "body"),
        ]
    )
    log.close()
    wipe(stack)
    async with stack.run() as (_, committer):
        (seq,) = await gather_results([committer.post(b"1", b"2", key=make_key("lost"))])
        assert isinstance(seq, int)
        assert seq > BOUND
        assert await gather_results([committer.post(b"1", key=make_key("old"))]) == [-1]


async def test_keys_that_only_redis_has_are_archived_once(
    stack: InProcessStack,
) -> None:
    async with stack.run_committer() as committer:
        async with run_flusher(stack.make_flusher()):
            assert await gather_results([committer.post(b"1", key=make_key("a"))]) == [1]
            await stack.wait_until_archived(1)
        assert await gather_results([committer.post(b"2", key=make_key("b"))]) == [2]
        # This is what a flusher that does not archive keys leaves.
        entries = stack.server.command("XRANGE", KEYS.new_idempotency_keys, "-", "+")
        assert [entry_id for entry_id, _ in entries] == ["2-1"]
        async with run_flusher(stack.make_flusher()):
            await stack.wait_until_archived(2)
            await poll_until(
                lambda: not stack.server.command("XLEN", KEYS.new_idempotency_keys),
                "it to be trimmed",
            )
    assert archived_keys(stack) == [("a", 1), ("b", 2)]


async def test_key_files_with_a_torn_end_and_damage_restore_the_rest(
    stack: InProcessStack, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stack.run() as (_, committer):
        futures = [committer.post(b"1", key=make_key(name)) for name in ("a", "b", "c")]
        assert sorted(await gather_results(futures)) == [1, 2, 3]  # type: ignore[type-var]
        await stack.wait_until_archived(3)
    (part,) = list_log_files(stack)
    first, second, third = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(
        first + second.replace(b" ", b"-", 3) + b"x" * 5000 + b"\n" + third + third[:9]
    )
    wipe(stack)
    async with stack.run() as (_, committer):
        for name, line in (("a", first), ("c", third)):
            last = int(line.split()[1])
            assert await gather_results([committer.post(b"1", key=make_key(name))]) == [-last]
        (again,) = await gather_results([committer.post(b"1", key=make_key("b"))])
        assert isinstance(again, int)
        assert again > BOUND
    assert "idempotency_log_damaged" in capsys.readouterr().out


async def test_key_is_valid_for_its_time_and_at_most_a_third_longer(stack: InProcessStack) -> None:
    seconds = 3.0
    clock = asyncio.get_running_loop().time
    async with stack.run(key_seconds=seconds) as (_, committer):
        started = clock()
        assert await gather_results([committer.post(b"1", key=make_key("k"))]) == [1]
        while await gather_results([committer.post(b"1", key=make_key("k"))]) == [-1]:
            assert clock() - started < 2 * seconds
            await asyncio.sleep(0.05)
        elapsed = clock() - started
        assert seconds <= elapsed <= seconds * (1 + 1 / GENERATIONS_PER_TTL) + 1.5
        await poll_until(
            lambda: len(list_log_files(stack)) <= GENERATIONS_PER_TTL + 1,
            "the old files to be deleted",
        )


async def test_key_ends_across_restarts_of_the_flusher_and_not_early(stack: InProcessStack) -> None:
    seconds = 3.0
    clock = asyncio.get_running_loop().time
    async with stack.run_committer() as committer:
        started = clock()
        elapsed = 0.0
        while not elapsed:
            async with run_flusher(stack.make_flusher(key_seconds=seconds)):
                await asyncio.sleep(0.7)
                answer = await gather_results([committer.post(b"1", key=make_key("k"))])
                if answer not in ([-1], [1]):
                    elapsed = clock() - started
            assert clock() - started < 3 * seconds
        assert elapsed >= seconds


async def test_over_the_budget_only_new_keys_are_refused(stack: InProcessStack) -> None:
    async with stack.run(max_keys=5, key_seconds=3.0) as (_, committer):
        futures = [committer.post(b"1", key=make_key(str(n))) for n in range(7)]
        answers = await gather_results(futures)
        assert [isinstance(answer, IdempotencyKeysFull) for answer in answers] == [False] * 5 + [
            True
        ] * 2
        assert await gather_results([committer.post(b"2")]) == [6]
        assert await gather_results([committer.post(b"1", key=make_key("0"))]) == [-1]

        async def accepts_new_key() -> bool:
            return isinstance(
                (await gather_results([committer.post(b"1", key=make_key("x"))]))[0], int
            )

        async with asyncio.timeout(10):
            while not await accepts_new_key():  # noqa: ASYNC110 - it polls a server
                await asyncio.sleep(0.1)


async def test_without_a_setting_the_budget_depends_on_the_memory_of_redis(
    stack: InProcessStack,
) -> None:
    stack.server.client().config_set("maxmemory", "24mb")
    async with stack.run(max_keys=0):
        share = 24 * 2**20 // 2 // REDIS_KEY_BYTES
        await poll_until(lambda: stack.read_state().get("keys_max") == str(share), "the budget")


async def test_keyed_entry_has_a_version_and_one_without_is_read(stack: InProcessStack) -> None:
    async with stack.run_committer() as committer:
        async with run_flusher(stack.make_flusher()):
            assert await gather_results([committer.post(b"1", key=make_key("a"))]) == [1]
            await stack.wait_until_archived(1)
        assert await gather_results([committer.post(b"2", b"3", key=make_key("b"))]) == [3]
        ((entry_id, fields),) = stack.server.command("XRANGE", KEYS.new_idempotency_keys, "-", "+")
        ((field, value),) = fields.items()
        assert (entry_id, field) == ("3-2", "k")
        version, received, *words = value.split(" ")
        assert (version, words) == ("1", ["b", "body"])
        stack.server.command("DEL", KEYS.new_idempotency_keys)
        stack.server.command(
            "XADD", KEYS.new_idempotency_keys, entry_id, field, f"{received} b body"
        )
        async with run_flusher(stack.make_flusher()):
            await stack.wait_until_archived(3)
    assert archived_keys(stack) == [("a", 1), ("b", 3)]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("k", "2 1478009511000 b body of-2", "version 2"),
        ("k", "2", "version 2"),
        ("k2", "1 1478009511000 b body", "an unknown field"),
    ],
)
async def test_keyed_entry_of_another_version_halts_and_waits_for_that_version(
    stack: InProcessStack, monkeypatch: pytest.MonkeyPatch, field: str, value: str, problem: str
) -> None:
    monkeypatch.setattr("busyapi.flusher.retry.HALT_RETRY_SECONDS", 0.2)
    async with stack.run() as (flusher, committer):
        assert await gather_results([committer.post(b"1", key=make_key("a"))]) == [1]
        await stack.wait_until_archived(1)
        stack.server.command("XADD", KEYS.new_idempotency_keys, "2-1", field, value)
        assert await gather_results([committer.post(b"2")]) == [2]
        await poll_until(
            lambda: f"seq 2 has {problem}" in flusher.not_ready_reason, "the flusher to halt"
        )
        assert flusher._metrics.halted._value.get() == 1
        # Neither the key nor its usages are skipped or trimmed.
        assert stack.read_archived_ids() == [1]
        assert stack.server.command("XRANGE", KEYS.new_idempotency_keys, "2", "2")
        # As the version that wrote it would: it archives the entry that it can read.
        stack.server.command("DEL", KEYS.new_idempotency_keys)
        stack.server.command(
            "XADD", KEYS.new_idempotency_keys, "2-1", "k", "1 1478009511000 b body"
        )
        await stack.wait_until_archived(2)
    assert archived_keys(stack) == [("a", 1), ("b", 2)]


async def test_fresh_install_deletes_the_keys_of_another(stack: InProcessStack) -> None:
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("k"))]) == [1]
        await stack.wait_until_archived(1)
    stack.server.command("DEL", KEYS.state, KEYS.seq, KEYS.stream, KEYS.lease)
    stack.archive = stack.archive.with_name("another")
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("k"))]) == [1]


async def test_server_that_an_older_flusher_seeded_gets_its_keys(
    stack: InProcessStack,
) -> None:
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("k"))]) == [1]
        await stack.wait_until_archived(1)
    # 0.2.0 seeds an empty server without keys, with its own epoch.
    stack.server.command("DEL", *KEYS.idempotency_hashes)
    stack.server.command("HSET", KEYS.state, "epoch", "of-another")
    async with stack.run() as (_, committer):
        assert await gather_results([committer.post(b"1", key=make_key("k"))]) == [-1]
        assert stack.read_state()["epoch"] == "of-another"
