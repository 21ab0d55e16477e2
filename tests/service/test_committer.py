"""One committer under faults: acknowledged usages are stored, and none is stored twice."""

import asyncio
import time

import pytest

from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import (
    BufferFull,
    DurabilityNotMet,
    IdempotencyKeyConflict,
    NotSeeded,
    OutcomeUnknown,
    Refused,
)
from busyapi.stream.scripts import REVOKE_SEEN_EPOCH
from testkit.archive_reader import read_archive
from testkit.history import digest
from testkit.in_process import (
    endpoint_of,
    gather_results,
    make_flusher,
    make_lines,
    poll_until,
    run_committer,
    run_flusher,
)
from testkit.proxied_server import BOUND, COMMIT_DIGESTS, KEYS, ProxiedServer, set_reply_timeout
from testkit.servers import FLAVOURS

# --- an answer is lost ---------------------------------------------------------------------


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_commit_whose_answer_is_lost_is_retried_and_stored_once(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        futures = [committer.post(usage) for usage in make_lines("a", 3)]
        assert await gather_results(futures) == [1, 2, 3]
        proxied.proxy.wait_until_lost()
        assert await committer.post(b"{}") == 4
    assert proxied.read_entry_ids() == ["3-3", "4-1"]


async def test_commit_whose_answer_is_lost_three_times_is_stored_once(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        future = committer.post(b"{}", b"{}")
        for _ in range(2):
            await asyncio.to_thread(proxied.proxy.wait_until_lost)
            proxied.proxy.lose_answer(COMMIT_DIGESTS)
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        assert await gather_results([future]) == [2]
    assert proxied.read_entry_ids() == ["2-2"]


async def test_keyed_commit_whose_answer_is_lost_is_retried(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        futures = [
            committer.post(b"{}", key=IdempotencyKey("a", "body")),
            committer.post(b"[]"),
            committer.post(b"{}", key=IdempotencyKey("b", "body")),
            committer.post(b"{}", key=IdempotencyKey("a", "body")),
            committer.post(b"{}", key=IdempotencyKey("a", "other")),
        ]
        one, two, three, again, refused = await gather_results(futures)
        assert isinstance(one, int)
        assert isinstance(two, int)
        assert again == one < 0
        assert {abs(seq) for seq in (one, two, three) if isinstance(seq, int)} == {1, 2, 3}
        assert isinstance(refused, IdempotencyKeyConflict)
    assert proxied.read_entry_ids() == ["1-1", "2-1", "3-1"]


async def test_own_retry_of_a_keyed_usage_is_not_a_replay(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        first = committer.post(b"{}", key=IdempotencyKey("a", "body", request_token="one"))
        assert await gather_results([first]) == [1]
        second = committer.post(b"{}", key=IdempotencyKey("a", "body", request_token="two"))
        assert await gather_results([second]) == [-1]
    assert proxied.read_entry_ids() == ["1-1"]


async def test_connection_cut_before_the_commit_is_reopened(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.reset()
        assert await gather_results([committer.post(b"{}"), committer.post(b"[]")]) == [1, 2]
    assert proxied.read_usages() == [b"{}", b"[]"]


async def test_usages_wait_while_no_connection_can_be_made(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 60.0)
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.refuse()
        proxied.proxy.reset()
        futures = [committer.post(usage) for usage in make_lines("a", 3)]
        await committer.wait_until_failed(3)
        futures += [committer.post(usage) for usage in make_lines("b", 3)]
        assert not any(future.done() for future in futures)
        proxied.proxy.accept()
        assert await gather_results(futures) == [1, 2, 3, 4, 5, 6]
    assert proxied.read_usages() == make_lines("a", 3) + make_lines("b", 3)


# --- the deadline --------------------------------------------------------------------------


async def test_over_the_deadline_sent_usages_are_unknown_and_the_rest_is_not_stored(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.proxy.mute()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: proxied.read_entry_ids() == ["1-1"], "the commit to arrive")
        waiting = committer.post(b'"waiting"')
        answers = await gather_results([sent, waiting])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        proxied.proxy.unmute()
        assert await committer.post(b'"later"') == 2
    assert proxied.read_usages() == [b'"sent"', b'"later"']


async def test_over_the_deadline_without_a_connection_nothing_is_stored(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.proxy.refuse()
        proxied.proxy.reset()
        # The connection is dead, but the committer notices only when it sends on it.
        first = committer.post(b'"first"')
        await poll_until(lambda: not committer.committer.is_ready, "the committer to notice")
        second = committer.post(b'"second"')
        answers = await gather_results([first, second])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        proxied.proxy.accept()
        await committer.wait_until_ready()
        assert await committer.post(b'"third"') == 1
    assert proxied.read_usages() == [b'"third"']


@pytest.mark.usefixtures("impatient")
async def test_late_commit_is_not_stored_in_addition_to_its_retry(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.hold()
        future = committer.post(b"{}")
        assert await gather_results([future]) == [1]
        await asyncio.to_thread(proxied.proxy.release)
    assert proxied.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_commit_that_arrives_after_a_later_one_is_never_stored(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the deadline, so the commit is not retried.
    set_reply_timeout(monkeypatch, 1.5)
    async with run_committer(proxied.endpoint, deadline=1.0) as committer:
        await committer.wait_until_ready()
        proxied.proxy.hold()
        late = committer.post(b'"late"')
        await poll_until(lambda: proxied.has_received(b'"late"'), "the proxy to receive it")
        (answer,) = await gather_results([late])
        assert isinstance(answer, OutcomeUnknown)
        await poll_until(lambda: committer.failures.errors, "the committer to close the connection")
        await committer.wait_until_ready()
        assert await committer.post(b'"later"') == 1
        await asyncio.to_thread(proxied.proxy.release)
    assert proxied.read_usages() == [b'"later"']


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
@pytest.mark.usefixtures("impatient")
async def test_paused_server_stores_once_what_it_reads_after_the_pause(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.server.pause()
        futures = [committer.post(usage) for usage in make_lines("a", 3)]
        # Each is sent, given up, and sent again on connections that the kernel has accepted.
        await committer.wait_until_failed()
        proxied.server.resume()
        assert await gather_results(futures) == [1, 2, 3]
        proxied.flush_sockets()
    assert proxied.read_usages() == make_lines("a", 3)


@pytest.mark.usefixtures("impatient")
async def test_server_paused_beyond_the_deadline_stores_at_most_once(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.server.pause()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: proxied.has_received(b'"sent"'), "it to be sent")
        answers = await gather_results([sent, committer.post(b'"waiting"')])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        proxied.server.resume()
        await committer.wait_until_ready()
        assert await committer.post(b'"later"') in {1, 2}
    assert proxied.read_usages() in ([b'"sent"', b'"later"'], [b'"later"'])


# --- epochs --------------------------------------------------------------------------------


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_uncertain_usage_is_given_up_when_the_epoch_has_changed(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        proxied.proxy.refuse()
        sent = committer.post(b'"sent"')
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        waiting = committer.post(b'"waiting"')
        # As after a failover: the stream is archived, and ids jump.
        proxied.server.command("HDEL", KEYS.state, "epoch")
        assert await proxied.reseed() == "a process saw that Redis went back"
        proxied.proxy.accept()
        answers = await gather_results([sent, waiting])
        assert isinstance(answers[0], OutcomeUnknown)
        assert answers[1] == 1 + BOUND + 2
    assert proxied.read_usages() == [b'"waiting"']
    archived = read_archive(proxied.archive).partition(0).lines
    assert [(proxied.id, proxied.digest) for proxied in archived] == [(1, digest("sent"))]


async def test_usage_refused_for_its_epoch_is_stored_under_the_next(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.server.command("HDEL", KEYS.state, "epoch")
        future = committer.post(b"{}")
        await poll_until(lambda: not committer.committer.is_ready, "the committer to be refused")
        await proxied.reseed()
        assert await gather_results([future]) == [BOUND + 2]
    assert proxied.read_entry_ids() == [f"{BOUND + 2}-1"]


async def test_usage_refused_for_its_epoch_until_the_deadline_is_not_stored(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.server.command("HDEL", KEYS.state, "epoch")
        (answer,) = await gather_results([committer.post(b"{}")])
        assert isinstance(answer, NotSeeded)
        assert proxied.read_entry_ids() == []
        await poll_until(
            lambda: committer.pool.committers[0].connection_state.refuses_writes,
            "writes to be refused",
        )
        await proxied.reseed()
        await poll_until(
            lambda: not committer.pool.committers[0].connection_state.refuses_writes,
            "writes to be accepted",
        )
        assert await committer.post(b"{}") == BOUND + 2


async def test_committer_continues_when_the_connection_fails_while_it_revokes_the_epoch(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", b"{}") == 2
        proxied.server.command("SET", KEYS.seq, 1)
        proxied.proxy.lose_answer(REVOKE_SEEN_EPOCH.sha1.encode())
        future = committer.post(b'"next"')
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        await proxied.reseed()
        assert await gather_results([future]) == [2 + BOUND + 2]


# --- refusals ------------------------------------------------------------------------------


async def test_full_buffer_is_refused_and_accepts_again_when_it_is_archived(
    proxied: ProxiedServer,
) -> None:
    await proxied.reseed(bound=BOUND)
    proxied.server.command("HSET", KEYS.state, "bound", 3)
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", b"{}") == 2
        answers = await gather_results([committer.post(b"[]", b"[]")])
        assert isinstance(answers[0], BufferFull)
        assert await committer.post(b"{}") == 3
        assert proxied.read_entry_ids() == ["2-2", "3-1"]
        async with run_flusher(
            make_flusher(endpoint_of(proxied.server), proxied.archive, bound=BOUND)
        ):
            await poll_until(lambda: proxied.read_entry_ids() == [], "the buffer to be archived")
            assert await committer.post(b"[]", b"[]") == 5


async def test_refusal_after_a_lost_answer_is_unknown(proxied: ProxiedServer) -> None:
    proxied.server.command("HSET", KEYS.state, "bound", 1)
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}") == 1
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        answers = await gather_results([committer.post(b"[]")])
        assert isinstance(answers[0], OutcomeUnknown)
    assert proxied.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_full_memory_is_refused_and_recovers(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.server.client().config_set("maxmemory", 1)
        answers = await gather_results(
            [committer.post(b"{}"), committer.post(b"{}", key=IdempotencyKey("a", "b"))]
        )
        assert all(isinstance(answer, BufferFull) for answer in answers)
        assert "memory" in str(answers[0])
        proxied.server.client().config_set("maxmemory", 0)
        assert await committer.post(b"{}") == 1
    assert proxied.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_flushed_scripts_are_loaded_again(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.server.command("SCRIPT FLUSH")
        assert await committer.post(b"{}") == 1
    assert proxied.read_entry_ids() == ["1-1"]


async def test_server_set_below_its_tier_while_it_runs_is_refused_until_it_is_repaired(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.2)
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.server.client().config_set("appendfsync", "everysec")
        # The committer notices even without a usage to send.
        await poll_until(
            lambda: committer.committer.durability_error, "the committer to notice", seconds=10
        )
        assert "set `appendfsync always`" in str(committer.committer.durability_error)
        answers = await gather_results([committer.post(b"{}")])
        assert isinstance(answers[0], DurabilityNotMet)
        proxied.server.client().config_set("appendfsync", "always")
        await committer.wait_until_ready()
        assert committer.committer.durability_error is None
        assert await committer.post(b"{}") == 1


async def test_server_is_also_rechecked_under_load(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.2)
    async with run_committer(proxied.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        proxied.server.client().config_set("no-appendfsync-on-rewrite", "yes")
        end = time.monotonic() + 10
        answers: list[int | BaseException] = [0]
        while not isinstance(answers[0], DurabilityNotMet) and time.monotonic() < end:
            answers = await gather_results([committer.post(b"{}")])
        assert isinstance(answers[0], DurabilityNotMet)
        # The check ran on the existing connection.
        assert {type(error) for error in committer.failures.errors} <= {DurabilityNotMet}


async def test_device_that_hangs_up_does_not_stop_its_commit(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        futures = [committer.post(usage) for usage in make_lines("a", 3)]
        futures[1].cancel()
        assert [await futures[0], await futures[2]] == [1, 3]
    assert proxied.read_usages() == make_lines("a", 3)


async def test_pending_writes_are_settled_when_a_committer_stops(proxied: ProxiedServer) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.mute()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: proxied.read_entry_ids() == ["1-1"], "the commit to arrive")
        waiting = committer.post(b'"waiting"')
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await committer.committer.wait_drained()
    answers = await gather_results([sent, waiting])
    assert isinstance(answers[0], OutcomeUnknown)
    assert isinstance(answers[1], Refused)
