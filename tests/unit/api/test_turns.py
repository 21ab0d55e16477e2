"""Turns: one long work at a time, short ones between, and no end of waiting."""

import asyncio
from time import thread_time

import pytest

from busyapi.api.turns import LONG_SECONDS, Turns
from busyapi.decode.steps import Steps
from busyapi.errors import NotAUsage, Overloaded


def one() -> str:
    return "one"


def work(name: str, steps: int, seen: list[str]) -> Steps[str]:
    for _ in range(steps):
        yield
        seen.append(name)
    return name


def test_one_long_work_is_done_at_a_time_and_a_short_one_does_not_wait() -> None:
    seen: list[str] = []

    async def three() -> list[str]:
        turns = Turns(5)
        both = [asyncio.ensure_future(turns.finish(work(name, 3, seen), one)) for name in "ab"]
        await asyncio.sleep(0)
        assert await turns.finish(work("short", 0, seen), one) == "short"
        assert len(seen) < 3
        return await asyncio.gather(*both)

    assert asyncio.run(three()) == ["a", "b"]
    assert seen == ["a", "a", "a", "b", "b", "b"]


def test_who_waits_too_long_is_refused() -> None:
    def endless() -> Steps[None]:
        while True:
            yield

    async def two() -> None:
        turns = Turns(0.05)
        first = asyncio.ensure_future(turns.finish(endless(), one))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await turns.finish(work("b", 2, []), one)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await turns.finish(work("c", 2, []), one) == "c"

    asyncio.run(two())


def test_a_work_that_fails_gives_its_turn_away() -> None:
    def failing() -> Steps[str]:
        yield
        raise NotAUsage([])

    async def two() -> None:
        turns = Turns(1)
        with pytest.raises(NotAUsage):
            await turns.finish(failing(), one)
        assert await turns.finish(work("b", 2, []), one) == "b"

    asyncio.run(two())


def test_a_sender_with_much_long_work_delays_another_by_one_of_them() -> None:
    seen: list[str] = []

    async def many() -> None:
        turns = Turns(5)
        flood = [asyncio.ensure_future(turns.finish(work("f", 2, seen), one)) for _ in range(20)]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(turns.finish(work("o", 2, seen), lambda: "other"))
        await asyncio.gather(*flood, other)

    asyncio.run(many())
    assert seen.index("o") <= 4  # behind the one under way, and the sender that came first
    assert seen.count("f") == 40


def test_a_waiter_that_is_gone_does_not_keep_the_turn() -> None:
    async def three() -> None:
        turns = Turns(5)
        works = [
            asyncio.ensure_future(turns.finish(work(name, 2, []), name.upper)) for name in "abc"
        ]
        await asyncio.sleep(0)
        works[1].cancel()
        await asyncio.gather(*works, return_exceptions=True)
        assert works[2].result() == "c"
        assert await turns.finish(work("d", 2, []), one) == "d"

    asyncio.run(three())


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_slow_last_step_others_are_served_before_the_next_turn(fails: bool) -> None:  # noqa: FBT001
    served = 0

    def slow() -> Steps[None]:
        yield
        end = thread_time() + 5 * LONG_SECONDS
        while thread_time() < end:
            pass
        if fails:
            raise NotAUsage([])

    def next_one() -> Steps[int]:
        yield
        return served

    async def others() -> None:
        nonlocal served
        while True:
            await asyncio.sleep(LONG_SECONDS)
            served += 1

    async def both() -> int:
        turns = Turns(5)
        first = asyncio.ensure_future(turns.finish(slow(), one))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(turns.finish(next_one(), one))
        serving = asyncio.ensure_future(others())
        await asyncio.wait([first])
        count = served
        assert isinstance(first.exception(), NotAUsage) == fails
        count = await second - count
        serving.cancel()
        return count

    assert asyncio.run(both()) >= 2
