"""Turns: one long work at a time, short ones between, and no end of waiting."""

import asyncio

import pytest

from busyapi.api.turns import Turns
from busyapi.decode.steps import Steps
from busyapi.errors import NotAUsage, Overloaded


def work(name: str, steps: int, seen: list[str]) -> Steps[str]:
    for _ in range(steps):
        yield
        seen.append(name)
    return name


def test_one_long_work_is_done_at_a_time_and_a_short_one_does_not_wait() -> None:
    seen: list[str] = []

    async def three() -> list[str]:
        turns = Turns(5)
        both = [asyncio.ensure_future(turns.finish(work(name, 3, seen))) for name in "ab"]
        await asyncio.sleep(0)
        assert await turns.finish(work("short", 0, seen)) == "short"
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
        first = asyncio.ensure_future(turns.finish(endless()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await turns.finish(work("b", 2, []))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await turns.finish(work("c", 2, [])) == "c"

    asyncio.run(two())


def test_a_work_that_fails_gives_its_turn_away() -> None:
    def failing() -> Steps[str]:
        yield
        raise NotAUsage([])

    async def two() -> None:
        turns = Turns(1)
        with pytest.raises(NotAUsage):
            await turns.finish(failing())
        assert await turns.finish(work("b", 2, [])) == "b"

    asyncio.run(two())
