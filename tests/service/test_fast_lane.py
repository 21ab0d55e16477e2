"""The fast lane and Sanic's own route are given the same bytes, and must do the same.

A case that differed is played again alone with BUSYAPI_TEST_CASES_FROM and its number.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Stacks
from tests.support.asking import BODY, Raw, count, request
from tests.support.broken import broken_build
from tests.support.differential import Case, Seen, alike, case, play
from tests.support.http1 import fetch
from tests.support.processes import Stack
from tests.support.servers import Server

SHORT = 1500
LONG = 100_000
FIRST = int(os.environ.get("BUSYAPI_TEST_CASES_FROM", time.time_ns() % 10**12))
AT_ONCE = 24

SETTINGS = {"BUSYAPI_REQUEST_DEADLINE": "1"}
"""A request that never arrives whole is given up soon."""

ORDER_LOST = {
    "api/fast.py": (
        "        if self._under_way:\n            self._hold(data)\n        elif not",
        "        if not",
    )
}
KEYS_IGNORED = {"api/fast.py": ('    b"idempotency-key",\n', "")}
CLOSE_IGNORED = {
    "api/fast.py": ('or value.lower() != b"keep-alive"', "or not value.lower().strip()")
}


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
        settings = {**SETTINGS, **code, "BUSYAPI_FAST_LANE": name}
        stack = Stack(folder / f"stack-{name}", server, settings=settings)
        stacks.append(running.enter_context(stack))
    return Pair(*stacks)


async def _differences(pair: Pair, cases: dict[int, Case]) -> list[str]:
    """Play each case on both; describe those that came out otherwise."""
    waiting = iter(cases.items())
    found: list[str] = []

    async def work() -> None:
        for number, each in waiting:
            fast, plain = await asyncio.gather(*(play(stack.port, each) for stack in pair))
            if not alike(fast, plain):
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


async def _stored(stack: Stack, seen: Seen, most: int) -> list[bytes]:
    """Return the usages behind the ids, as they are given back."""
    answers = [
        await asyncio.to_thread(fetch, stack.port, f"/api/usages/{number}")
        for number in seen.ids[:most]
    ]
    return [each.body.partition(b'"usage":')[2] for each in answers]


def _hold(pair: Pair, cases: dict[int, Case]) -> None:
    before = [count(stack.port) for stack in pair]
    found = asyncio.run(_differences(pair, cases))
    assert not found, f"{len(found)} differ\n" + "\n\n".join(found[:3])
    one, two = (count(stack.port) - n for stack, n in zip(pair, before, strict=True))
    assert one == two, "they stored as many"
    assert one, "some of the cases are usages"


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(SHORT, marks=pytest.mark.timeout(240)),
        pytest.param(LONG, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_any_bytes_are_answered_stored_and_closed_alike(pair: Pair, cases: int) -> None:
    for start in range(FIRST, FIRST + cases, 10_000):
        end = min(start + 10_000, FIRST + cases)
        _hold(pair, {number: case(number) for number in range(start, end)})


def test_an_ordinary_request_cut_anywhere_is_answered_alike(pair: Pair) -> None:
    whole = request("POST", "/api/usages", BODY, headers=("Content-Type: application/json",))
    cuts = range(1, len(whole))
    _hold(pair, {at: Case((whole[:at], whole[at:])) for at in cuts})
    _hold(pair, {at: Case((whole + whole[:at], whole[at:] + whole)) for at in cuts[::5]})


def test_a_flood_of_pipelined_requests_is_answered_in_order_and_read_on(pair: Pair) -> None:
    whole = request("POST", "/api/usages", BODY)
    for stack in pair:
        with Raw(stack.port, 30) as device:
            device.send(whole)
            device.send(whole * 3000)
            ids = [device.answer().json()["id"] for _ in range(3001)]
            assert ids == sorted(ids)


def _statuses_while_redis_stands_still(stack: Stack, server: Server) -> list[int]:
    """Post a usage, then ask for nothing on the same connection; give the answers' statuses."""
    with Raw(stack.port) as device:
        server.pause()
        device.send(request("POST", "/api/usages", BODY))
        # Both are read by now: it is the lane that waits.
        device.listen(0.3)
        device.send(request("GET", "/nowhere"))
        device.listen(0.3)
        server.resume()
        return [device.answer().status, device.answer().status]


def test_what_follows_a_usage_waits_for_its_answer(valkey: Server, stacks: Stacks) -> None:
    assert _statuses_while_redis_stands_still(stacks(valkey), valkey) == [201, 404]


def test_a_fast_lane_that_loses_the_order_is_caught(
    tmp_path: Path, valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings=broken_build(tmp_path, ORDER_LOST))
    assert _statuses_while_redis_stands_still(stack, valkey) == [404, 201]


@pytest.mark.parametrize("broken", [KEYS_IGNORED, CLOSE_IGNORED], ids=["keys", "close"])
def test_a_fast_lane_that_is_not_alike_is_caught(
    tmp_path: Path, broken: dict[str, tuple[str, str]]
) -> None:
    """And so the lane was taken at all."""
    with ExitStack() as running:
        pair = _pair(running, tmp_path, broken_build(tmp_path, broken))
        keyed = request("POST", "/api/usages", BODY, headers=("Idempotency-Key: a b",))
        last = request("POST", "/api/usages", BODY, headers=("Connection: close",))
        cases = [
            Case((keyed,)),
            Case((last,)),
        ]
        assert asyncio.run(_differences(pair, dict(enumerate(cases))))
