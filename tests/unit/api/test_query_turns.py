"""A client's queries run one after the other, at the same time as those of others."""

import asyncio

import pytest

from busyapi.api import query_turns
from busyapi.api.query_turns import MAX_OF_CLIENT, MAX_QUERIES, QueryTurns
from busyapi.errors import QueriesBusy


async def test_client_with_many_queries_does_not_delay_another_one() -> None:
    turns, order = QueryTurns(), []
    done = asyncio.Event()

    async def query(client: str) -> None:
        async with turns.take(client):
            order.append(client)
            if client == "greedy":
                await done.wait()

    greedy = [asyncio.create_task(query("greedy")) for _ in range(MAX_OF_CLIENT)]
    await asyncio.sleep(0)
    with pytest.raises(QueriesBusy):
        await query("greedy")
    await asyncio.wait_for(query("modest"), 1)
    assert order == ["greedy", "modest"]
    done.set()
    await asyncio.gather(*greedy)
    await query("greedy")
    assert not turns._locks
    assert not turns._counts


async def test_queries_that_wait_too_long_and_too_many_of_all_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(query_turns, "WAIT_SECONDS", 0.05)
    turns = QueryTurns()
    async with turns.take("a"):
        with pytest.raises(QueriesBusy):
            async with turns.take("a"):
                pass
        holders = [turns.take(str(number)) for number in range(MAX_QUERIES - 1)]
        for holder in holders:
            await holder.__aenter__()
        with pytest.raises(QueriesBusy):
            async with turns.take("one more"):
                pass
        for holder in holders:
            await holder.__aexit__(None, None, None)
    assert not turns._counts
