"""The fast path and Sanic's own route are given the same bytes, and must do the same.

A case that differed is played again alone with BUSYAPI_TEST_CASES_FROM and its number.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from busyapi.api.fast_path import MAX_HELD_BYTES
from busyapi.settings import SWITCH
from testkit import mutants
from testkit.api_client import BODY, RawConnection, fetch_count, render_request
from testkit.broken_build import Mutant, broken_build
from testkit.differential import Case, Observation, are_alike, make_case, play_case
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

SHORT = 500
FULL = 1500
LONG = 100_000
FIRST = int(os.environ.get("BUSYAPI_TEST_CASES_FROM", time.time_ns() % 10**12))
AT_ONCE = 24

SETTINGS = {"BUSYAPI_REQUEST_DEADLINE": "3"}
"""A request that never arrives whole is given up soon."""


class Pair(NamedTuple):
    """Two stacks that differ in one setting."""

    fast: Stack
    plain: Stack


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as running:
        yield _pair(running, tmp_path_factory.mktemp("pair"), {})


def _pair(running: ExitStack, folder: Path, build: dict[str, str]) -> Pair:
    stacks = []
    for name, code in (("on", build), ("off", {})):
        server = running.enter_context(Server(folder / f"valkey-{name}"))
        settings = {**SETTINGS, **code, "BUSYAPI_FAST_PATH": name}
        stack = Stack(folder / f"stack-{name}", server, settings=settings)
        stacks.append(running.enter_context(stack))
    return Pair(*stacks)


async def _differences(pair: Pair, cases: dict[int, Case]) -> list[str]:
    """Play each case on both; describe those that came out otherwise."""
    waiting = iter(cases.items())
    found: list[str] = []

    async def work() -> None:
        for number, each in waiting:
            fast, plain = await asyncio.gather(*(play_case(stack.port, each) for stack in pair))
            if not are_alike(fast, plain):
                found.append(f"case {number}\n{each}\nfast:  {fast}\nplain: {plain}")
                continue
            most = min(3, len(fast.ids), len(plain.ids))
            one, two = await _stored(pair.fast, fast, most), await _stored(pair.plain, plain, most)
            if one != two:
                found.append(f"case {number}\n{each}\nstored by fast: {one}\nby plain: {two}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return found


async def _stored(stack: Stack, seen: Observation, most: int) -> list[bytes]:
    """Return the usages behind the ids, as they are given back."""
    answers = [
        await asyncio.to_thread(fetch, stack.port, f"/api/usages/{number}")
        for number in seen.ids[:most]
    ]
    return [each.body.partition(b'"usage":')[2] for each in answers]


def _hold(pair: Pair, cases: dict[int, Case]) -> None:
    before = [fetch_count(stack.port) for stack in pair]
    found = asyncio.run(_differences(pair, cases))
    assert not found, f"{len(found)} differ\n" + "\n\n".join(found[:3])
    one, two = (fetch_count(stack.port) - n for stack, n in zip(pair, before, strict=True))
    assert one == two, "they stored as many"
    assert one, "some of the cases are usages"
    assert _counted(pair.fast) == _counted(pair.plain)


def _counted(stack: Stack) -> dict[str, float]:
    """Return how many posts were answered with each status that no timing decides."""
    metric = partial(stack.apis[0].read_metric, "busyapi_requests_total", route="/api/usages")
    return {status: metric(status=status) for status in ("201", "400", "415", "422")}


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
        _hold(pair, {number: make_case(number) for number in range(start, end)})


def test_an_ordinary_request_cut_anywhere_is_answered_alike(pair: Pair) -> None:
    whole = render_request("POST", "/api/usages", BODY, headers=("Content-Type: application/json",))
    cuts = range(1, len(whole))
    _hold(pair, {at: Case((whole[:at], whole[at:])) for at in cuts})
    _hold(pair, {at: Case((whole + whole[:at], whole[at:] + whole)) for at in cuts[::5]})


def _statuses_of_large_requests(stack: Stack, server: Server) -> list[int]:
    """Post a usage, while it waits one that is more than is held, then another."""
    large = BODY[:-1] + b',"more":"' + b"x" * (65_000 - len(BODY)) + b'"}'
    whole = render_request("POST", "/api/usages", large, headers=(f"X: {'x' * 1000}",))
    with RawConnection(stack.port, 5) as device:
        server.pause()
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until(lambda: not device.count_unread(), "the first usage to be read")
        device.send(whole)
        # Reading ends with MAX_HELD, which may leave the last bytes.
        wait_until(
            lambda: device.count_unread() < len(whole) - MAX_HELD_BYTES, "the second to be held"
        )
        server.resume()
        statuses = [device.read_answer().status, device.read_answer().status]
        device.send(render_request("POST", "/api/usages", BODY))
        return [*statuses, device.read_answer().status]


def test_a_connection_is_read_on_after_more_than_is_held(valkey: Server, stacks: Stacks) -> None:
    assert _statuses_of_large_requests(stacks(valkey), valkey) == [201, 201, 201]


def _status_after_a_long_commit(stack: Stack, server: Server) -> int:
    """Post a usage on a connection, and let it wait for longer than an idle one is kept."""
    server.pause()
    with RawConnection(stack.port) as device:
        device.send(render_request("POST", "/api/usages", BODY))
        device.wait_for_data(3)
        server.resume()
        return device.read_answer().status


def test_a_connection_whose_usage_waits_is_not_idle(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.shorten_idle_time))
    assert _status_after_a_long_commit(stack, valkey) == 201


@pytest.mark.mutants
def test_a_fast_path_that_is_idle_while_a_usage_waits_is_caught(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(
        valkey, settings=broken_build(mutants.shorten_idle_time, mutants.take_waiting_for_idle)
    )
    with pytest.raises(EOFError):
        _status_after_a_long_commit(stack, valkey)


@pytest.mark.parametrize("switch", SWITCH)
def test_a_client_that_hangs_up_is_counted_and_its_usage_kept(
    valkey: Server, stacks: Stacks, switch: str
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_FAST_PATH": switch})
    valkey.pause()
    with RawConnection(stack.port) as device:
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until_pending(stack)
        device.reset()
    gone = partial(stack.apis[0].read_metric, "busyapi_requests_total", status="499")
    wait_until(lambda: gone() == 1, "the client to be counted")
    valkey.resume()
    wait_until(lambda: fetch_count(stack.port) == 1, "the usage to be stored")
    assert stack.apis[0].read_metric("busyapi_requests_total", route="/api/usages") == 1


def test_answers_that_were_lost_are_not_alike() -> None:
    said = Observation((b"x",), closed=True, ids=(1,), reset=False)
    assert are_alike(said, said)
    assert not are_alike(Observation((), closed=True, ids=(), reset=False), said)
    assert not are_alike(
        Observation((), closed=True, ids=(), reset=False), replace(said, reset=True)
    )
    assert not are_alike(Observation((b"y",), closed=True, ids=(1,), reset=True), said)
    assert not are_alike(replace(said, closed=False), said)
    assert are_alike(Observation((), closed=True, ids=(), reset=True), said)


def test_a_flood_of_pipelined_requests_is_answered_in_order_and_read_on(pair: Pair) -> None:
    whole = render_request("POST", "/api/usages", BODY)
    for stack in pair:
        with RawConnection(stack.port, 30) as device:
            device.send(whole)
            device.send(whole * 3000)
            ids = [device.read_answer().json()["id"] for _ in range(3001)]
            assert ids == sorted(ids)


def wait_until_pending(stack: Stack) -> None:
    """Wait until a usage waits for its commit."""
    pending = partial(stack.apis[0].read_metric, "busyapi_pending_usages")
    wait_until(lambda: pending() == 1, "the usage to be read")


def _statuses_while_redis_stands_still(
    stack: Stack, server: Server, seconds: float = 0.3
) -> list[int]:
    """Post a usage, then ask for nothing on the same connection; give the answers' statuses.

    Redis goes on after so many seconds, or with the first answer.
    """
    with RawConnection(stack.port) as device:
        server.pause()
        device.send(render_request("POST", "/api/usages", BODY))
        wait_until_pending(stack)
        device.send(render_request("GET", "/nowhere"))
        device.wait_for_data(seconds)
        server.resume()
        return [device.read_answer().status, device.read_answer().status]


def test_what_follows_a_usage_waits_for_its_answer(valkey: Server, stacks: Stacks) -> None:
    assert _statuses_while_redis_stands_still(stacks(valkey), valkey) == [201, 404]


@pytest.mark.mutants
def test_a_fast_path_that_loses_the_order_is_caught(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.lose_order))
    assert _statuses_while_redis_stands_still(stack, valkey, 5) == [404, 201]


@pytest.mark.mutants
@pytest.mark.parametrize(
    ("broken", "header"),
    [(mutants.ignore_keys, "Idempotency-Key: a b"), (mutants.ignore_close, "Connection: close")],
    ids=["keys", "close"],
)
def test_a_fast_path_that_is_not_alike_is_caught(
    tmp_path: Path, broken: Mutant, header: str
) -> None:
    """And so the committer was taken at all."""
    with ExitStack() as running:
        pair = _pair(running, tmp_path, broken_build(broken))
        cases = {0: Case((render_request("POST", "/api/usages", BODY, headers=(header,)),))}

        def taken() -> bool:
            found = asyncio.run(_differences(pair, cases))
            # After a stall one of the two says 408.
            return any("201 Created" in each and "408" not in each for each in found)

        # More than once: a reset may eat the answer, and on a busy machine the request behind the
        # case may be read together with it: Sanic answers both then.
        wait_until(taken, "a difference", seconds=60)
