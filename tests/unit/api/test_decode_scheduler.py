"""Turns: one long work at a time, short ones between, and no end of waiting."""

import asyncio
from time import thread_time

import pytest

from busyapi.api.decode_scheduler import SLOW_STEP_SECONDS, DecodeScheduler
from busyapi.decode.incremental import Incremental
from busyapi.errors import InvalidUsage, Overloaded


def one() -> str:
    return "one"


def work(name: str, steps: int, seen: list[str]) -> Incremental[str]:
    for _ in range(steps):
        yield
        seen.append(name)
    return name


def test_one_long_work_is_done_at_a_time_and_a_short_one_does_not_wait() -> None:
    seen: list[str] = []

    async def three() -> list[str]:
        turns = DecodeScheduler(5)
        both = [asyncio.ensure_future(turns.run(work(name, 3, seen), one)) for name in "ab"]
        await asyncio.sleep(0)
        assert await turns.run(work("short", 0, seen), one) == "short"
        assert len(seen) < 3
        return await asyncio.gather(*both)

    assert asyncio.run(three()) == ["a", "b"]
    assert seen == ["a", "a", "a", "b", "b", "b"]


def test_who_waits_too_long_is_refused() -> None:
    def endless() -> Incremental[None]:
        while True:
            yield

    async def two() -> None:
        turns = DecodeScheduler(0.05)
        first = asyncio.ensure_future(turns.run(endless(), one))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await turns.run(work("b", 2, []), one)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await turns.run(work("c", 2, []), one) == "c"

    asyncio.run(two())


def test_a_work_that_fails_gives_its_turn_away() -> None:
    def failing() -> Incremental[str]:
        yield
        raise InvalidUsage([])

    async def two() -> None:
        turns = DecodeScheduler(1)
        with pytest.raises(InvalidUsage):
            await turns.run(failing(), one)
        assert await turns.run(work("b", 2, []), one) == "b"

    asyncio.run(two())


def test_a_sender_with_much_long_work_delays_another_by_one_of_them() -> None:
    seen: list[str] = []

    async def many() -> None:
        turns = DecodeScheduler(5)
        flood = [asyncio.ensure_future(turns.run(work("f", 2, seen), one)) for _ in range(20)]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(turns.run(work("o", 2, seen), lambda: "other"))
        await asyncio.gather(*flood, other)

    asyncio.run(many())
    assert seen.index("o") <= 4  # behind the one under way, and the sender that came first
    assert seen.count("f") == 40


def test_a_waiter_that_is_gone_does_not_keep_the_turn() -> None:
    async def three() -> None:
        turns = DecodeScheduler(5)
        works = [asyncio.ensure_future(turns.run(work(name, 2, []), name.upper)) for name in "abc"]
        await asyncio.sleep(0)
        works[1].cancel()
        await asyncio.gather(*works, return_exceptions=True)
        assert works[2].result() == "c"
        assert await turns.run(work("d", 2, []), one) == "d"

    asyncio.run(three())


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_slow_last_step_others_are_served_before_the_next_turn(fails: bool) -> None:  # noqa: FBT001
    served = 0

    def slow() -> Incremental[None]:
        yield
        end = thread_time() + 5 * SLOW_STEP_SECONDS
        while thread_time() < end:
            pass
        if fails:
            raise InvalidUsage([])

    def next_one() -> Incremental[int]:
        yield
        return served

    async def others() -> None:
        nonlocal served
        while True:
            await asyncio.sleep(SLOW_STEP_SECONDS)
            served += 1

    async def both() -> int:
        turns = DecodeScheduler(5)
        first = asyncio.ensure_future(turns.run(slow(), one))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(turns.run(next_one(), one))
        serving = asyncio.ensure_future(others())
        await asyncio.wait([first])
        count = served
        assert isinstance(first.exception(), InvalidUsage) == fails
        count = await second - count
        serving.cancel()
        return count

    assert asyncio.run(both()) >= 2
