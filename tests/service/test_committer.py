"""One committer under faults: what was acknowledged is stored, and nothing is stored twice."""

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


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_lost_answer_is_asked_for_again_and_stored_once(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
        futures = [committer.post(each) for each in make_lines("a", 3)]
        assert await gather_results(futures) == [1, 2, 3]
        line.proxy.wait_until_lost()
        assert await committer.post(b"{}") == 4
    assert line.read_entry_ids() == ["3-3", "4-1"]


async def test_answer_lost_again_and_again_is_stored_once(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
        future = committer.post(b"{}", b"{}")
        for _ in range(2):
            await asyncio.to_thread(line.proxy.wait_until_lost)
            line.proxy.lose_answer(COMMIT_DIGESTS)
        await asyncio.to_thread(line.proxy.wait_until_lost)
        assert await gather_results([future]) == [2]
    assert line.read_entry_ids() == ["2-2"]


async def test_lost_answer_of_a_keyed_usage_is_asked_for_again(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
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
        assert {abs(each) for each in (one, two, three) if isinstance(each, int)} == {1, 2, 3}
        assert isinstance(refused, IdempotencyKeyConflict)
    assert line.read_entry_ids() == ["1-1", "2-1", "3-1"]


async def test_own_repeat_of_a_keyed_usage_is_no_replay(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
        first = committer.post(b"{}", key=IdempotencyKey("a", "body", request_token="one"))
        assert await gather_results([first]) == [1]
        second = committer.post(b"{}", key=IdempotencyKey("a", "body", request_token="two"))
        assert await gather_results([second]) == [-1]
    assert line.read_entry_ids() == ["1-1"]


async def test_connection_cut_before_the_commit_is_made_again(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.reset()
        assert await gather_results([committer.post(b"{}"), committer.post(b"[]")]) == [1, 2]
    assert line.read_usages() == [b"{}", b"[]"]


async def test_usages_wait_while_no_connection_can_be_made(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.connection_state.RECONNECT_GRACE_SECONDS", 60.0)
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.refuse()
        line.proxy.reset()
        futures = [committer.post(each) for each in make_lines("a", 3)]
        await committer.wait_until_failed(3)
        futures += [committer.post(each) for each in make_lines("b", 3)]
        assert not any(each.done() for each in futures)
        line.proxy.accept()
        assert await gather_results(futures) == [1, 2, 3, 4, 5, 6]
    assert line.read_usages() == make_lines("a", 3) + make_lines("b", 3)


# --- the deadline --------------------------------------------------------------------------


async def test_over_the_deadline_what_was_sent_is_unknown_and_the_rest_is_not_stored(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.proxy.mute()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: line.read_entry_ids() == ["1-1"], "the commit to arrive")
        waiting = committer.post(b'"waiting"')
        answers = await gather_results([sent, waiting])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        line.proxy.unmute()
        assert await committer.post(b'"later"') == 2
    assert line.read_usages() == [b'"sent"', b'"later"']


async def test_over_the_deadline_without_a_connection_nothing_is_stored(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.proxy.refuse()
        line.proxy.reset()
        # The connection is dead, but the committer finds that out by sending on it.
        first = committer.post(b'"first"')
        await poll_until(lambda: not committer.committer.is_ready, "the committer to notice")
        second = committer.post(b'"second"')
        answers = await gather_results([first, second])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        line.proxy.accept()
        await committer.wait_until_ready()
        assert await committer.post(b'"third"') == 1
    assert line.read_usages() == [b'"third"']


@pytest.mark.usefixtures("impatient")
async def test_commit_that_comes_late_is_not_stored_beside_its_repeat(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.hold()
        future = committer.post(b"{}")
        assert await gather_results([future]) == [1]
        await asyncio.to_thread(line.proxy.release)
    assert line.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_commit_that_comes_after_a_later_one_is_never_stored(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Later than the deadline, so that it is not sent again.
    set_reply_timeout(monkeypatch, 1.5)
    async with run_committer(line.endpoint, deadline=1.0) as committer:
        await committer.wait_until_ready()
        line.proxy.hold()
        late = committer.post(b'"late"')
        await poll_until(lambda: line.has_received(b'"late"'), "the proxy to have it")
        (answer,) = await gather_results([late])
        assert isinstance(answer, OutcomeUnknown)
        await poll_until(
            lambda: committer.failures.errors, "the committer to give the connection up"
        )
        await committer.wait_until_ready()
        assert await committer.post(b'"later"') == 1
        await asyncio.to_thread(line.proxy.release)
    assert line.read_usages() == [b'"later"']


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
@pytest.mark.usefixtures("impatient")
async def test_paused_server_stores_once_what_it_finds_when_it_wakes(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.server.pause()
        futures = [committer.post(each) for each in make_lines("a", 3)]
        # Sent, given up, and asked for again on connections that the kernel has accepted.
        await committer.wait_until_failed()
        line.server.resume()
        assert await gather_results(futures) == [1, 2, 3]
        line.flush_sockets()
    assert line.read_usages() == make_lines("a", 3)


@pytest.mark.usefixtures("impatient")
async def test_server_paused_beyond_the_deadline_stores_at_most_once(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.server.pause()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: line.has_received(b'"sent"'), "it to be sent")
        answers = await gather_results([sent, committer.post(b'"waiting"')])
        assert isinstance(answers[0], OutcomeUnknown)
        assert isinstance(answers[1], Refused)
        line.server.resume()
        await committer.wait_until_ready()
        assert await committer.post(b'"later"') in {1, 2}
    assert line.read_usages() in ([b'"sent"', b'"later"'], [b'"later"'])


# --- epochs --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_uncertain_usage_is_given_up_when_the_epoch_has_changed(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
        line.proxy.refuse()
        sent = committer.post(b'"sent"')
        await asyncio.to_thread(line.proxy.wait_until_lost)
        waiting = committer.post(b'"waiting"')
        # As after a failover: what the stream has goes to the archive, and ids jump.
        line.server.command("HDEL", KEYS.state, "epoch")
        assert await line.reseed() == "a process saw that Redis went back"
        line.proxy.accept()
        answers = await gather_results([sent, waiting])
        assert isinstance(answers[0], OutcomeUnknown)
        assert answers[1] == 1 + BOUND + 2
    assert line.read_usages() == [b'"waiting"']
    archived = read_archive(line.archive).partition(0).lines
    assert [(each.id, each.digest) for each in archived] == [(1, digest("sent"))]


async def test_usage_refused_for_its_epoch_is_stored_under_the_next(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.server.command("HDEL", KEYS.state, "epoch")
        future = committer.post(b"{}")
        await poll_until(lambda: not committer.committer.is_ready, "the committer to be refused")
        await line.reseed()
        assert await gather_results([future]) == [BOUND + 2]
    assert line.read_entry_ids() == [f"{BOUND + 2}-1"]


async def test_usage_refused_for_its_epoch_until_the_deadline_is_not_stored(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.server.command("HDEL", KEYS.state, "epoch")
        (answer,) = await gather_results([committer.post(b"{}")])
        assert isinstance(answer, NotSeeded)
        assert line.read_entry_ids() == []
        await poll_until(
            lambda: committer.pool.committers[0].connection_state.refuses_writes,
            "it to be shut out",
        )
        await line.reseed()
        await poll_until(
            lambda: not committer.pool.committers[0].connection_state.refuses_writes,
            "it to be let in",
        )
        assert await committer.post(b"{}") == BOUND + 2


async def test_committer_lives_on_when_the_connection_fails_as_it_takes_the_epoch_away(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", b"{}") == 2
        line.server.command("SET", KEYS.seq, 1)
        line.proxy.lose_answer(REVOKE_SEEN_EPOCH.sha1.encode())
        future = committer.post(b'"next"')
        await asyncio.to_thread(line.proxy.wait_until_lost)
        await line.reseed()
        assert await gather_results([future]) == [2 + BOUND + 2]


# --- refusals ------------------------------------------------------------------------------


async def test_full_buffer_is_refused_and_takes_again_when_it_was_archived(
    line: ProxiedServer,
) -> None:
    await line.reseed(bound=BOUND)
    line.server.command("HSET", KEYS.state, "bound", 3)
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}", b"{}") == 2
        answers = await gather_results([committer.post(b"[]", b"[]")])
        assert isinstance(answers[0], BufferFull)
        assert await committer.post(b"{}") == 3
        assert line.read_entry_ids() == ["2-2", "3-1"]
        async with run_flusher(make_flusher(endpoint_of(line.server), line.archive, bound=BOUND)):
            await poll_until(lambda: line.read_entry_ids() == [], "the buffer to be archived")
            assert await committer.post(b"[]", b"[]") == 5


async def test_refusal_after_a_lost_answer_is_unknown(line: ProxiedServer) -> None:
    line.server.command("HSET", KEYS.state, "bound", 1)
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b"{}") == 1
        line.proxy.lose_answer(COMMIT_DIGESTS)
        answers = await gather_results([committer.post(b"[]")])
        assert isinstance(answers[0], OutcomeUnknown)
    assert line.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_full_memory_is_refused_and_recovers(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.server.client().config_set("maxmemory", 1)
        answers = await gather_results(
            [committer.post(b"{}"), committer.post(b"{}", key=IdempotencyKey("a", "b"))]
        )
        assert all(isinstance(each, BufferFull) for each in answers)
        assert "memory" in str(answers[0])
        line.server.client().config_set("maxmemory", 0)
        assert await committer.post(b"{}") == 1
    assert line.read_entry_ids() == ["1-1"]


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_scripts_that_were_flushed_are_loaded_again(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.server.command("SCRIPT FLUSH")
        assert await committer.post(b"{}") == 1
    assert line.read_entry_ids() == ["1-1"]


async def test_server_made_weaker_while_it_runs_is_refused_until_it_is_mended(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.2)
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.server.client().config_set("appendfsync", "everysec")
        # Without a usage to send, too.
        await poll_until(
            lambda: committer.committer.durability_error, "the committer to notice", seconds=10
        )
        assert "set `appendfsync always`" in str(committer.committer.durability_error)
        answers = await gather_results([committer.post(b"{}")])
        assert isinstance(answers[0], DurabilityNotMet)
        line.server.client().config_set("appendfsync", "always")
        await committer.wait_until_ready()
        assert committer.committer.durability_error is None
        assert await committer.post(b"{}") == 1


async def test_server_is_checked_again_under_load_too(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.2)
    async with run_committer(line.endpoint, deadline=2.0) as committer:
        await committer.wait_until_ready()
        line.server.client().config_set("no-appendfsync-on-rewrite", "yes")
        end = time.monotonic() + 10
        answers: list[int | BaseException] = [0]
        while not isinstance(answers[0], DurabilityNotMet) and time.monotonic() < end:
            answers = await gather_results([committer.post(b"{}")])
        assert isinstance(answers[0], DurabilityNotMet)
        # The check was made on the connection there was.
        assert {type(each) for each in committer.failures.errors} <= {DurabilityNotMet}


async def test_device_that_hangs_up_does_not_stop_its_commit(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        futures = [committer.post(each) for each in make_lines("a", 3)]
        futures[1].cancel()
        assert [await futures[0], await futures[2]] == [1, 3]
    assert line.read_usages() == make_lines("a", 3)


async def test_what_is_left_when_a_committer_stops_is_settled(line: ProxiedServer) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.mute()
        sent = committer.post(b'"sent"')
        await poll_until(lambda: line.read_entry_ids() == ["1-1"], "the commit to arrive")
        waiting = committer.post(b'"waiting"')
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await committer.committer.wait_drained()
    answers = await gather_results([sent, waiting])
    assert isinstance(answers[0], OutcomeUnknown)
    assert isinstance(answers[1], Refused)
