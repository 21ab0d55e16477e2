"""What a committer said of a usage holds: refused is never stored, unknown at most once."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from busyapi.commit.pending import IdempotencyKey
from busyapi.errors import OutcomeUnknown, Refused
from busyapi.stream.scripts import SET_EXPIRING
from testkit.in_process import CommitterHarness, gather_results, poll_until, run_committer
from testkit.proxied_server import COMMIT_DIGESTS, KEYS, ProxiedServer, set_reply_timeout
from testkit.servers import FLAVOURS

A, B = b'"A"', b'"B"'
REFUSALS = {
    # What a failover does: when the batch arrives, the epoch is gone.
    "EPOCH": ("HDEL", KEYS.state, "epoch"),
    "NOREPLICAS": ("CONFIG", "SET", "min-replicas-to-write", "1"),
}


def command(*words: str) -> bytes:
    """Render a command for a paused server, which finds it before the next commit."""
    return (
        f"*{len(words)}\r\n" + "".join(f"${len(each)}\r\n{each}\r\n" for each in words)
    ).encode()


@pytest.fixture
def aside(line: ProxiedServer) -> Iterator[socket.socket]:
    """A connection that the server has accepted before it is paused."""
    with socket.create_connection(("127.0.0.1", line.server.port)) as connection:
        connection.sendall(command("PING"))
        assert connection.recv(100)
        yield connection


async def posted_in_one_flight(
    line: ProxiedServer, committer: CommitterHarness, apart: float, *, keyed: bool = False
) -> list[asyncio.Future[int]]:
    """Post A and B, B later than A, so that one batch has both; leave the server paused."""
    line.server.pause()
    first = committer.post(b'"first"')
    await poll_until(lambda: line.has_received(b'"first"'), "the first flight to be sent")
    keys = (IdempotencyKey("a", "body"), IdempotencyKey("b", "body")) if keyed else (None, None)
    older = [committer.post(A, key=each) for each in {None, keys[0]}]
    await asyncio.sleep(apart)
    younger = [committer.post(B, key=each) for each in {None, keys[1]}]
    return [first, *older, *younger]


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_usage_that_was_called_not_stored_is_not_sent_again_with_younger_ones(
    line: ProxiedServer, aside: socket.socket, refusal: str, *, keyed: bool
) -> None:
    async with run_committer(line.endpoint, deadline=3.0) as committer:
        await committer.wait_until_ready()
        first, *rest = await posted_in_one_flight(line, committer, 2.0, keyed=keyed)
        half = len(rest) // 2
        aside.sendall(command(*REFUSALS[refusal]))
        line.server.resume()
        assert await first == 1
        for answer in await gather_results(rest[:half]):
            assert isinstance(answer, Refused)
        line.server.command("CONFIG", "SET", "min-replicas-to-write", 0)
        if refusal == "EPOCH":
            await line.reseed()
        assert all(isinstance(each, int) for each in await gather_results(rest[half:]))
    assert A not in line.read_usages()
    assert line.read_usages().count(B) == half


async def test_flight_that_may_be_stored_is_repeated_as_it_was(line: ProxiedServer) -> None:
    # Without A it would be another batch under a number that the server knows, or a second B.
    async with run_committer(line.endpoint, deadline=3.0) as committer:
        await committer.wait_until_ready()
        first, older, younger = await posted_in_one_flight(line, committer, 2.0)
        line.proxy.lose_answer(A)
        line.server.resume()
        assert await first == 1
        await asyncio.to_thread(line.proxy.wait_until_lost)
        line.proxy.refuse()
        assert isinstance((await gather_results([older]))[0], OutcomeUnknown)
        line.proxy.accept()
        assert await younger == 3
    assert line.read_usages() == [b'"first"', A, B]


# --- the committer's memory ----------------------------------------------------------------------


def forget(line: ProxiedServer) -> None:
    """Do what the server does when its clock is set forward by an hour."""
    for each in line.server.command("KEYS", KEYS.committer("*")):
        assert line.server.command("TTL", each) > 0
        line.server.command("DEL", each)


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_committer_that_was_forgotten_calls_its_lost_answer_unknown(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.lose_answer(COMMIT_DIGESTS)
        line.proxy.refuse()
        sent = committer.post(A)
        await asyncio.to_thread(line.proxy.wait_until_lost)
        forget(line)
        line.proxy.accept()
        assert isinstance((await gather_results([sent]))[0], OutcomeUnknown)
        assert await committer.post(B) == 2
    assert line.read_usages() == [A, B]


async def test_committer_that_is_forgotten_with_nothing_under_way_stores_what_comes(
    line: ProxiedServer,
) -> None:
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(A) == 1
        forget(line)
        assert await committer.post(B) == 2
    assert line.read_usages() == [A, B]


@pytest.mark.parametrize("line", FLAVOURS, indirect=True)
async def test_call_that_comes_late_is_not_stored_by_a_server_that_forgot_the_committer(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_reply_timeout(monkeypatch, 0.5)
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        line.proxy.hold()
        future = committer.post(A)
        assert await future == 1
        forget(line)
        await asyncio.to_thread(line.proxy.release)
        assert await committer.post(B) == 2
    assert line.read_usages() == [A, B]


async def test_idle_committer_that_was_forgotten_refuses_nothing(
    line: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.1)
    async with run_committer(line.endpoint) as committer:
        await committer.wait_until_ready()
        forget(line)
        await poll_until(
            lambda: line.server.command("KEYS", KEYS.committer("*")), "the committer to notice"
        )
        assert await committer.post(A) == 1
        assert not committer.failures.errors


async def test_lost_answer_to_a_committer_that_names_itself_again_costs_no_refusal(
    line: ProxiedServer, impatient: None
) -> None:
    del impatient
    async with run_committer(line.endpoint, deadline=6.0) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b'"first"') == 1
        line.server.command("HDEL", KEYS.state, "epoch")
        answer = committer.post(A)
        await poll_until(lambda: not committer.committer.is_ready, "the flight to be refused")
        (guard,) = line.server.command("KEYS", KEYS.committer("*"))
        line.server.command("DEL", guard)
        line.proxy.lose_answer(SET_EXPIRING.sha1.encode())
        await line.reseed()
        await asyncio.to_thread(line.proxy.wait_until_lost)
        assert isinstance(await answer, int)
    assert line.read_usages().count(A) == 1
