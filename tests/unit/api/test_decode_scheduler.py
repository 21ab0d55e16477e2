"""The decode scheduler: one long task at a time, short ones between, and a bounded wait."""

import asyncio
from time import thread_time

import pytest

from busyapi.api.decode_scheduler import SLOW_STEP_SECONDS, DecodeScheduler
from busyapi.decode.incremental import Incremental
from busyapi.errors import InvalidUsage, Overloaded


def get_sender() -> str:
    return "one"


def make_task(name: str, steps: int, log: list[str]) -> Incremental[str]:
    for _ in range(steps):
        yield
        log.append(name)
    return name


def test_one_long_task_runs_at_a_time_and_a_short_one_does_not_wait() -> None:
    seen: list[str] = []

    async def run_tasks() -> list[str]:
        scheduler = DecodeScheduler(5)
        tasks = [
            asyncio.ensure_future(scheduler.run(make_task(name, 3, seen), get_sender))
            for name in "ab"
        ]
        await asyncio.sleep(0)
        assert await scheduler.run(make_task("short", 0, seen), get_sender) == "short"
        assert len(seen) < 3
        return await asyncio.gather(*tasks)

    assert asyncio.run(run_tasks()) == ["a", "b"]
    assert seen == ["a", "a", "a", "b", "b", "b"]


def test_a_task_that_waits_too_long_is_refused() -> None:
    def run_forever() -> Incremental[None]:
        while True:
            yield

    async def run_tasks() -> None:
        scheduler = DecodeScheduler(0.05)
        first = asyncio.ensure_future(scheduler.run(run_forever(), get_sender))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await scheduler.run(make_task("b", 2, []), get_sender)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await scheduler.run(make_task("c", 2, []), get_sender) == "c"

    asyncio.run(run_tasks())


def test_a_failed_task_releases_its_turn() -> None:
    def fail() -> Incremental[str]:
        yield
        raise InvalidUsage([])

    async def run_tasks() -> None:
        scheduler = DecodeScheduler(1)
        with pytest.raises(InvalidUsage):
            await scheduler.run(fail(), get_sender)
        assert await scheduler.run(make_task("b", 2, []), get_sender) == "b"

    asyncio.run(run_tasks())


def test_a_sender_with_many_long_tasks_delays_another_by_one_of_them() -> None:
    seen: list[str] = []

    async def run_tasks() -> None:
        scheduler = DecodeScheduler(5)
        flood = [
            asyncio.ensure_future(scheduler.run(make_task("f", 2, seen), get_sender))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(scheduler.run(make_task("o", 2, seen), lambda: "other"))
        await asyncio.gather(*flood, other)

    asyncio.run(run_tasks())
    assert seen.index("o") <= 4  # after the running task and the sender that came first
    assert seen.count("f") == 40


def test_a_cancelled_waiter_does_not_keep_the_turn() -> None:
    async def run_tasks() -> None:
        scheduler = DecodeScheduler(5)
        tasks = [
            asyncio.ensure_future(scheduler.run(make_task(name, 2, []), name.upper))
            for name in "abc"
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[2].result() == "c"
        assert await scheduler.run(make_task("d", 2, []), get_sender) == "d"

    asyncio.run(run_tasks())


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_slow_last_step_others_are_served_before_the_next_turn(fails: bool) -> None:  # noqa: FBT001
    served = 0

    def run_slowly() -> Incremental[None]:
        yield
        end = thread_time() + 5 * SLOW_STEP_SECONDS
        while thread_time() < end:
            pass
        if fails:
            raise InvalidUsage([])

    def read_served() -> Incremental[int]:
        yield
        return served

    async def serve_others() -> None:
        nonlocal served
        while True:
            await asyncio.sleep(SLOW_STEP_SECONDS)
            served += 1

    async def run_both() -> int:
        scheduler = DecodeScheduler(5)
        first = asyncio.ensure_future(scheduler.run(run_slowly(), get_sender))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(scheduler.run(read_served(), get_sender))
        serving = asyncio.ensure_future(serve_others())
        await asyncio.wait([first])
        count = served
        assert isinstance(first.exception(), InvalidUsage) == fails
        count = await second - count
        serving.cancel()
        return count

    # Once is certain: their timer is due before the pause ends, however late both are noticed.
    assert asyncio.run(run_both()) >= 1
