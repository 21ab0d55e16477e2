"""A committer's answer stays true: a refused usage is never stored, an unknown one at most once."""

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
    # As in a failover: when the batch arrives, there is no epoch.
    "EPOCH": ("HDEL", KEYS.state, "epoch"),
    "NOREPLICAS": ("CONFIG", "SET", "min-replicas-to-write", "1"),
}


def render_command(*words: str) -> bytes:
    """Render a command for a paused server, which reads it before the next commit."""
    return (
        f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    ).encode()


@pytest.fixture
def side_connection(proxied: ProxiedServer) -> Iterator[socket.socket]:
    """A connection that the server accepts before it is paused."""
    with socket.create_connection(("127.0.0.1", proxied.server.port)) as connection:
        connection.sendall(render_command("PING"))
        assert connection.recv(100)
        yield connection


async def post_in_one_batch(
    proxied: ProxiedServer, committer: CommitterHarness, delay: float, *, keyed: bool = False
) -> list[asyncio.Future[int]]:
    """Post A and B, B later than A, so that one batch has both; leave the server paused."""
    proxied.server.pause()
    first = committer.post(b'"first"')
    await poll_until(lambda: proxied.has_received(b'"first"'), "the first batch to be sent")
    keys = (IdempotencyKey("a", "body"), IdempotencyKey("b", "body")) if keyed else (None, None)
    older = [committer.post(A, key=key) for key in {None, keys[0]}]
    await asyncio.sleep(delay)
    younger = [committer.post(B, key=key) for key in {None, keys[1]}]
    return [first, *older, *younger]


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_usage_reported_as_not_stored_is_not_sent_again_with_later_ones(
    proxied: ProxiedServer, side_connection: socket.socket, refusal: str, *, keyed: bool
) -> None:
    async with run_committer(proxied.endpoint, deadline=3.0) as committer:
        await committer.wait_until_ready()
        first, *rest = await post_in_one_batch(proxied, committer, 2.0, keyed=keyed)
        half = len(rest) // 2
        side_connection.sendall(render_command(*REFUSALS[refusal]))
        proxied.server.resume()
        assert await first == 1
        for answer in await gather_results(rest[:half]):
            assert isinstance(answer, Refused)
        proxied.server.command("CONFIG", "SET", "min-replicas-to-write", 0)
        if refusal == "EPOCH":
            await proxied.reseed()
        assert all(isinstance(answer, int) for answer in await gather_results(rest[half:]))
    assert A not in proxied.read_usages()
    assert proxied.read_usages().count(B) == half


async def test_batch_that_may_be_stored_is_retried_unchanged(proxied: ProxiedServer) -> None:
    # Without A it would be another batch with a number that the server knows, or a second B.
    async with run_committer(proxied.endpoint, deadline=3.0) as committer:
        await committer.wait_until_ready()
        first, older, younger = await post_in_one_batch(proxied, committer, 2.0)
        proxied.proxy.lose_answer(A, then_refuse=True)
        proxied.server.resume()
        assert await first == 1
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        assert isinstance((await gather_results([older]))[0], OutcomeUnknown)
        proxied.proxy.accept()
        assert await younger == 3
    assert proxied.read_usages() == [b'"first"', A, B]


# --- the committer's memory ----------------------------------------------------------------------


def expire_committers(proxied: ProxiedServer) -> None:
    """Delete what the server expires when its clock is set forward by an hour."""
    for key in proxied.server.command("KEYS", KEYS.committer("*")):
        assert proxied.server.command("TTL", key) > 0
        proxied.server.command("DEL", key)


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_expired_committer_reports_its_lost_answer_as_unknown(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.lose_answer(COMMIT_DIGESTS)
        proxied.proxy.refuse()
        sent = committer.post(A)
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        expire_committers(proxied)
        proxied.proxy.accept()
        assert isinstance((await gather_results([sent]))[0], OutcomeUnknown)
        assert await committer.post(B) == 2
    assert proxied.read_usages() == [A, B]


async def test_expired_committer_without_a_batch_in_flight_stores_the_next_usage(
    proxied: ProxiedServer,
) -> None:
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        assert await committer.post(A) == 1
        expire_committers(proxied)
        assert await committer.post(B) == 2
    assert proxied.read_usages() == [A, B]


@pytest.mark.parametrize("proxied", FLAVOURS, indirect=True)
async def test_late_command_is_not_stored_by_a_server_that_expired_the_committer(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_reply_timeout(monkeypatch, 0.5)
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        proxied.proxy.hold()
        future = committer.post(A)
        assert await future == 1
        expire_committers(proxied)
        await asyncio.to_thread(proxied.proxy.release)
        assert await committer.post(B) == 2
    assert proxied.read_usages() == [A, B]


async def test_idle_expired_committer_refuses_nothing(
    proxied: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.1)
    async with run_committer(proxied.endpoint) as committer:
        await committer.wait_until_ready()
        expire_committers(proxied)
        await poll_until(
            lambda: proxied.server.command("KEYS", KEYS.committer("*")), "the committer to notice"
        )
        assert await committer.post(A) == 1
        assert not committer.failures.errors


async def test_lost_answer_to_a_committer_that_registers_again_causes_no_refusal(
    proxied: ProxiedServer, impatient: None
) -> None:
    del impatient
    async with run_committer(proxied.endpoint, deadline=6.0) as committer:
        await committer.wait_until_ready()
        assert await committer.post(b'"first"') == 1
        proxied.server.command("HDEL", KEYS.state, "epoch")
        answer = committer.post(A)
        await poll_until(lambda: not committer.committer.is_ready, "the batch to be refused")
        (dedup_key,) = proxied.server.command("KEYS", KEYS.committer("*"))
        proxied.server.command("DEL", dedup_key)
        proxied.proxy.lose_answer(SET_EXPIRING.sha1.encode())
        await proxied.reseed()
        await asyncio.to_thread(proxied.proxy.wait_until_lost)
        assert isinstance(await answer, int)
    assert proxied.read_usages().count(A) == 1
