"""The fast path and Sanic's own route get the same bytes and must behave the same.

To play one differing case again, set BUSYAPI_TEST_CASES_FROM to its number.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from busyapi.api.fast_path import MAX_HELD_BYTES
from busyapi.commit.connection_state import RECONNECT_GRACE_SECONDS
from busyapi.settings import SWITCH
from testkit import mutants
from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_stored,
    check_unavailable,
    fetch_count,
    render_request,
    send,
)
from testkit.archive_reader import read_archive
from testkit.broken_build import Mutant, broken_build
from testkit.differential import Case, Observation, are_alike, make_case, play_case
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server
from testkit.stamping import SALT
from testkit.waiting import wait_until
from tests.conftest import Stacks

SHORT = 500
FULL = 1500
LONG = 100_000
FIRST = int(os.environ.get("BUSYAPI_TEST_CASES_FROM", time.time_ns() % 10**12))
AT_ONCE = 24

SETTINGS = {"BUSYAPI_REQUEST_DEADLINE": "3"}
"""A request that never arrives complete is given up soon."""


class Pair(NamedTuple):
    """Two stacks that differ in one setting."""

    fast: Stack
    plain: Stack


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as running:
        yield _pair(running, tmp_path_factory.mktemp("pair"), {})


def _pair(
    running: ExitStack, folder: Path, build: dict[str, str], more: dict[str, str] | None = None
) -> Pair:
    stacks = []
    for name, code in (("on", build), ("off", {})):
        server = running.enter_context(Server(folder / f"valkey-{name}"))
        settings = {**SETTINGS, **(more or {}), **code, "BUSYAPI_FAST_PATH": name}
        stack = Stack(folder / f"stack-{name}", server, settings=settings)
        stacks.append(running.enter_context(stack))
    return Pair(*stacks)


async def _find_differences(pair: Pair, cases: dict[int, Case]) -> list[str]:
    """Play each case on both; return a description of each difference."""
    waiting = iter(cases.items())
    differences: list[str] = []

    async def work() -> None:
        for number, item in waiting:
            fast, plain = await asyncio.gather(*(play_case(stack.port, item) for stack in pair))
            if not are_alike(fast, plain):
                differences.append(f"case {number}\n{item}\nfast:  {fast}\nplain: {plain}")
                continue
            max_ids = min(3, len(fast.ids), len(plain.ids))
            one, two = (
                await _stored(pair.fast, fast, max_ids),
                await _stored(pair.plain, plain, max_ids),
            )
            if one != two:
                differences.append(f"case {number}\n{item}\nstored by fast: {one}\nby plain: {two}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return differences


async def _stored(stack: Stack, seen: Observation, max_ids: int) -> list[bytes]:
    """Return the usages of the ids, as they are read back."""
    answers = [
        await asyncio.to_thread(fetch, stack.port, f"/api/usages/{number}")
        for number in seen.ids[:max_ids]
    ]
    return [answer.body.partition(b'"usage":')[2] for answer in answers]


def _assert_alike(pair: Pair, cases: dict[int, Case]) -> None:
    before = [fetch_count(stack.port) for stack in pair]
    differences = asyncio.run(_find_differences(pair, cases))
    assert not differences, f"{len(differences)} differ\n" + "\n\n".join(differences[:3])
    one, two = (fetch_count(stack.port) - n for stack, n in zip(pair, before, strict=True))
    assert one == two, "they stored different numbers"
    assert one, "no case is a usage"
    assert _count_statuses(pair.fast) == _count_statuses(pair.plain)


def _count_statuses(stack: Stack) -> dict[str, float]:
    """Return the number of posts by status, for statuses that do not depend on timing."""
    metric = partial(stack.apis[0].read_metric, "busyapi_requests_total")
    return {
        f"{route} {status}": metric(status=status, route=route)
        for route in ("/api/usages", "/api/usages/batch")
        for status in ("201", "400", "401", "403", "415", "422")
    }


@pytest.mark.parametrize(
    "cases",
    [
        SHORT,
        pytest.param(FULL, marks=[pytest.mark.full, pytest.mark.timeout(240)]),
        pytest.param(LONG, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_any_bytes_are_answered_stored_and_closed_alike(pair: Pair, cases: int) -> None:
    for start in range(FIRST, FIRST + cases, 10_000):
        end = min(start + 10_000, FIRST + cases)
        _assert_alike(pair, {number: make_case(number) for number in range(start, end)})


WRITE = b'scopes = ["write"]'
TOKENS = {
    "any": WRITE,
    "reader": b'scopes = ["read"]',
    "bound": WRITE + b"\npatient_id = " + json.dumps(USAGE["patientId"]).encode(),
    "other": WRITE + b'\npatient_id = "another"',
    "expired": WRITE + b"\nexpires = 2020-01-01",
    "slow": WRITE + b"\nrate = 0.001",
}
CREDENTIALS = (
    *["Authorization: Bearer any", "authorization: Bearer bound"] * 3,
    *(f"Authorization: Bearer {name}" for name in ("reader", "other", "expired", "unknown")),
    "Authorization: bearer  any",
    "Authorization: Bearer any ",
    "Authorization:Bearer any",
    "AUTHORIZATION: Bearer any",
    "Authorization: Basic any",
    "Authorization: Bearer any\r\nAuthorization: Bearer any",
    "Authorization: Bearer any\r\nAuthorization: Bearer unknown",
    "Authorization: Bearer any\nX: y",
    "Authorization: Bearer \xff",
    "X-Forwarded-Client-Cert: URI=spiffe://any",
)


def write_tokens(path: Path, names: Iterable[str]) -> None:
    """Write a file of credentials in which each name is also the token."""
    path.write_bytes(
        b"\n".join(
            b'[tokens.%b]\nsha256 = "%b"\n%b'
            % (name.encode(), sha256(name.encode()).hexdigest().encode(), TOKENS[name])
            for name in names
        )
    )


class Guarded(NamedTuple):
    """A pair that requires a token to write, and its file of credentials."""

    pair: Pair
    tokens: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens"
    write_tokens(tokens, TOKENS)
    salt = folder / "salt"
    salt.write_bytes(SALT)
    settings = {
        "BUSYAPI_TOKENS_FILE": str(tokens),
        "BUSYAPI_ANONYMOUS": "read",
        "BUSYAPI_TRUSTED_PROXIES": "127.0.0.0/8",
        "BUSYAPI_WRITER_SALT_FILE": str(salt),
    }
    with ExitStack() as running:
        yield Guarded(_pair(running, folder, {}, settings), tokens)


@pytest.mark.parametrize(
    "cases", [SHORT, pytest.param(FULL, marks=[pytest.mark.full, pytest.mark.timeout(240)])]
)
def test_any_credential_is_answered_alike(guarded: Guarded, cases: int) -> None:
    _assert_alike(
        guarded.pair,
        {number: make_case(number, CREDENTIALS) for number in range(FIRST, FIRST + cases)},
    )
    writers, others = map(_count_writers, guarded.pair)
    assert writers == others, "they put different stamps behind the usages"
    assert len(writers) >= 2
    assert "" not in writers


def _count_writers(stack: Stack) -> Counter[str]:
    """Return how many archived usages have the stamp of each writer."""
    stack.wait_until_archived()
    return Counter(line.writer for line in read_archive(stack.archive).partition(0).lines)


def _post_in_turns(stack: Stack, token: str, times: int) -> list[int]:
    """Post a usage repeatedly on one connection and return the statuses."""
    post = render_request("POST", "/api/usages", BODY, headers=(f"Authorization: Bearer {token}",))
    statuses = []
    with RawConnection(stack.port) as device:
        for _ in range(times):
            device.send(post)
            statuses.append(device.read_answer().status)
    return statuses


def _wait_for_status(stack: Stack, token: str, status: int) -> None:
    wait_until(lambda: _post_in_turns(stack, token, 1) == [status], f"{token} to get {status}")


def test_a_rate_is_charged_alike(guarded: Guarded) -> None:
    # The burst is one usage. After a refusal the connection stays open.
    for stack in guarded.pair:
        assert _post_in_turns(stack, "slow", 3) == [201, 429, 429]


def test_a_revoked_token_is_refused_alike_within_seconds(guarded: Guarded) -> None:
    for stack in guarded.pair:
        assert _post_in_turns(stack, "any", 3) == [201] * 3
    write_tokens(guarded.tokens, TOKENS.keys() - {"any"})
    for stack in guarded.pair:
        _wait_for_status(stack, "any", 401)
        assert _post_in_turns(stack, "bound", 2) == [201] * 2
    write_tokens(guarded.tokens, TOKENS)
    for stack in guarded.pair:
        _wait_for_status(stack, "any", 201)


def test_an_ordinary_request_cut_anywhere_is_answered_alike(pair: Pair) -> None:
    post = render_request("POST", "/api/usages", BODY, headers=("Content-Type: application/json",))
    cuts = range(1, len(post))
    _assert_alike(pair, {split: Case((post[:split], post[split:])) for split in cuts})
    _assert_alike(
        pair, {split: Case((post + post[:split], post[split:] + post)) for split in cuts[::5]}
    )


def _statuses_of_large_requests(stack: Stack, server: Server) -> list[int]:
    """Post a usage, meanwhile one larger than the fast path buffers, then a third."""
    large = BODY[:-1] + b',"more":"' + b"x" * (65_000 - len(BODY)) + b'"}'
    post = render_request("POST", "/api/usages", large, headers=(f"X: {'x' * 1000}",))
    with RawConnection(stack.port, 5) as device:
        server.pause()
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until(lambda: not device.count_unread(), "the first usage to be read")
        device.send(post)
        # Reading stops at MAX_HELD_BYTES, so the last bytes may stay unread.
        wait_until(
            lambda: device.count_unread() <= len(post) - MAX_HELD_BYTES, "the second to be held"
        )
        server.resume()
        statuses = [device.read_answer().status, device.read_answer().status]
        device.send(render_request("POST", "/api/usages", BODY))
        return [*statuses, device.read_answer().status]


def test_reading_resumes_after_more_bytes_than_the_fast_path_buffers(
    valkey: Server, stacks: Stacks
) -> None:
    assert _statuses_of_large_requests(stacks(valkey), valkey) == [201, 201, 201]


def _status_after_a_long_commit(stack: Stack, server: Server) -> int:
    """Post a usage and let it wait for longer than the idle timeout."""
    server.pause()
    with RawConnection(stack.port) as device:
        device.send(render_request("POST", "/api/usages", BODY))
        device.wait_for_data(3)
        server.resume()
        return device.read_answer().status


def test_a_connection_with_a_pending_usage_is_not_idle(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.shorten_idle_time))
    assert _status_after_a_long_commit(stack, valkey) == 201


@pytest.mark.mutants
def test_a_fast_path_that_treats_a_pending_usage_as_idle_is_caught(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(
        valkey, settings=broken_build(mutants.shorten_idle_time, mutants.count_waiting_as_idle)
    )
    with pytest.raises(EOFError):
        _status_after_a_long_commit(stack, valkey)


@pytest.mark.parametrize("switch", SWITCH)
def test_a_client_that_hangs_up_is_counted_and_its_usage_is_stored(
    valkey: Server, stacks: Stacks, switch: str
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_FAST_PATH": switch})
    valkey.pause()
    with RawConnection(stack.port) as device:
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until_pending(stack)
        device.reset()
    hang_ups = partial(stack.apis[0].read_metric, "busyapi_requests_total", status="499")
    wait_until(lambda: hang_ups() == 1, "the client to be counted")
    valkey.resume()
    wait_until(lambda: fetch_count(stack.port) == 1, "the usage to be stored")
    assert stack.apis[0].read_metric("busyapi_requests_total", route="/api/usages") == 1


def test_lost_answers_are_not_alike() -> None:
    observation = Observation((b"x",), closed=True, ids=(1,), reset=False)
    assert are_alike(observation, observation)
    assert not are_alike(Observation((), closed=True, ids=(), reset=False), observation)
    assert not are_alike(
        Observation((), closed=True, ids=(), reset=False), replace(observation, reset=True)
    )
    assert not are_alike(Observation((b"y",), closed=True, ids=(1,), reset=True), observation)
    assert not are_alike(replace(observation, closed=False), observation)
    assert are_alike(Observation((), closed=True, ids=(), reset=True), observation)


def test_a_flood_of_pipelined_requests_is_answered_in_order(pair: Pair) -> None:
    post = render_request("POST", "/api/usages", BODY)
    for stack in pair:
        with RawConnection(stack.port, 30) as device:
            device.send(post)
            device.send(post * 3000)
            ids = [device.read_answer().json()["id"] for _ in range(3001)]
            assert ids == sorted(ids)


def wait_until_pending(stack: Stack) -> None:
    """Wait until a usage is pending."""
    pending = partial(stack.apis[0].read_metric, "busyapi_pending_usages")
    wait_until(lambda: pending() == 1, "the usage to be read")


def _statuses_while_redis_is_paused(
    stack: Stack, server: Server, seconds: float = 0.3
) -> list[int]:
    """Post a usage, then get an unknown path on the same connection; return both statuses.

    Redis resumes after this many seconds, or with the first answer.
    """
    with RawConnection(stack.port) as device:
        server.pause()
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until_pending(stack)
        device.send(render_request("GET", "/nowhere"))
        device.wait_for_data(seconds)
        server.resume()
        return [device.read_answer().status, device.read_answer().status]


def test_a_request_after_a_usage_waits_for_its_answer(valkey: Server, stacks: Stacks) -> None:
    assert _statuses_while_redis_is_paused(stacks(valkey), valkey) == [201, 404]


@pytest.mark.mutants
def test_a_fast_path_that_loses_the_order_is_caught(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.lose_order))
    assert _statuses_while_redis_is_paused(stack, valkey, 5) == [404, 201]


@pytest.mark.mutants
@pytest.mark.parametrize(
    ("broken", "header"),
    [
        (mutants.take_any_key, "Idempotency-Key: a b"),
        (mutants.ignore_keys, "Idempotency-Key: a"),
        (mutants.ignore_close, "Connection: close"),
    ],
    ids=["any key", "keys", "close"],
)
def test_a_fast_path_that_is_not_alike_is_caught(
    tmp_path: Path, broken: Mutant, header: str
) -> None:
    """This also proves that the fast path was used at all."""
    with ExitStack() as running:
        pair = _pair(running, tmp_path, broken_build(broken))
        cases = {0: Case((render_request("POST", "/api/usages", BODY, headers=(header,)),))}

        def is_caught() -> bool:
            differences = asyncio.run(_find_differences(pair, cases))
            # After a stall one of the two answers 408.
            return any("201 Created" in text and "408" not in text for text in differences)

        # Try more than once: a reset may discard the answer, and on a busy machine the next
        # request may be read together with the case, and then Sanic answers both.
        wait_until(is_caught, "a difference", seconds=60)


@pytest.mark.faults
@pytest.mark.parametrize("path", ["on", "off"])
def test_refusal_is_alike_and_counted_once_on_both_paths(tmp_path: Path, path: str) -> None:
    settings = {"BUSYAPI_FAST_PATH": path}
    with (
        Server(tmp_path / "server") as server,
        Stack(tmp_path / "stack", server, settings=settings) as stack,
    ):
        (api,) = stack.apis

        def count_refusals() -> float:
            return api.read_metric("busyapi_refused_total", reason="RedisUnavailable")

        check_stored(send(stack.port, USAGE))
        server.kill9()
        time.sleep(2 * RECONNECT_GRACE_SECONDS)
        before = count_refusals()
        check_unavailable(send(stack.port, USAGE), "no")
        assert count_refusals() - before == 1
        server.start()
        wait_until(lambda: send(stack.port, USAGE).status == 201, "Redis to be used again")
