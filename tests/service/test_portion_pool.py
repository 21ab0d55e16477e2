"""Portions of one rate in several processes, against real servers.

Each `PortionPool` here is what one API process has. The clock is the server's own: how much was
allowed is compared with what the bucket had in the time between two `TIME` of the server.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from busyapi.api.portion_pool import PortionPool
from busyapi.api.rate_portion import BURST_SECONDS
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.rate_buckets import RateBuckets
from busyapi.stream.redis_url import parse_redis_url
from testkit.in_process import endpoint_of, poll_until
from testkit.log_leaks import MARK
from testkit.ports import reserve_port
from testkit.servers import Server
from testkit.topologies import ClusterOfThree

CLIENT = f"{MARK}-client"
Traffic = Callable[[PortionPool], Awaitable[int]]
"""Sends for a while and returns how many usages were allowed."""


@asynccontextmanager
async def run_pools(
    endpoint: Endpoint, processes: int = 1, partitions: int = 1
) -> AsyncIterator[list[PortionPool]]:
    """Run what several processes have. An exception in it fails the test."""
    pools = [
        PortionPool([RateBuckets(endpoint, partition) for partition in range(partitions)])
        for _ in range(processes)
    ]
    tasks = [asyncio.create_task(entry.run()) for entry in pools]
    yield pools
    for task in tasks:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for entry in pools:
        await entry.close()


async def send(pool: PortionPool, rate: float, cost: int = 1, client: str = CLIENT) -> bool:
    """Send one request as the route does; return whether it is allowed."""
    return await pool.charge([pool.find("credential", client, rate)], cost) is None


def read_clock(server: Server) -> float:
    """Return the server's time in seconds."""
    seconds, microseconds = server.command("TIME")
    return float(seconds) + float(microseconds) / 1e6


class Record(NamedTuple):
    """The value of a bucket."""

    level: float
    at: float
    taken: float


def read_record(server: Server) -> Record:
    """Return the only bucket of a server."""
    (key,) = server.command("KEYS", "busyapi:{0}:rate:*")
    level, at, taken = map(float, server.command("GET", key).split())
    return Record(level, at / 1000, taken)


async def flood(pool: PortionPool, rate: float, seconds: float, pause: float) -> int:
    """Send one request after another; return how many were allowed."""
    end, allowed = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < end:
        allowed += await send(pool, rate)
        await asyncio.sleep(pause)
    return allowed


async def visit_in_turn(pools: list[PortionPool], rate: float, seconds: float) -> int:
    """Use the credit of each process again and again, with pauses."""
    end, allowed = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < end:
        for entry in random.sample(pools, len(pools)):
            for _ in range(random.randint(1, 4)):
                allowed += await send(entry, rate)
            await asyncio.sleep(random.uniform(0, 0.3))
    return allowed


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
async def test_several_processes_allow_the_rate_and_no_more(valkey: Server, rate: float) -> None:
    """Uneven: one process has nearly all of the traffic, one has pauses, and one client moves."""
    processes = 4
    async with run_pools(endpoint_of(valkey), processes) as pools:
        before = read_clock(valkey)
        counts = await asyncio.gather(
            flood(pools[0], rate, 6, 0.0002),
            flood(pools[1], rate, 6, 0.05),
            flood(pools[2], rate, 3, 0.002),
            visit_in_turn(pools, rate, 6),
        )
        elapsed, record = read_clock(valkey) - before, read_record(valkey)
    burst = max(1, rate * BURST_SECONDS)
    credit = max(1, burst * 0.02)
    budget = burst + rate * elapsed
    assert sum(counts) <= budget + processes * credit
    assert sum(counts) >= 0.9 * budget - 1  # less than one usage may be left
    # By the server's own record: what it has given, and what it will be paid.
    assert 0.9 * record.taken - 1 <= sum(counts) <= record.taken + processes * credit


async def test_after_a_pause_a_client_gets_its_burst_and_then_its_rate(valkey: Server) -> None:
    rate = 20.0
    async with run_pools(endpoint_of(valkey), 2) as (pool, _):
        for _ in range(2):
            before = read_clock(valkey)
            counts = [await send(pool, rate) for _ in range(200)]
            elapsed = read_clock(valkey) - before
            burst = round(rate * BURST_SECONDS)
            assert counts[:burst] == [True] * burst
            assert sum(counts) <= burst + 1 + rate * elapsed
            await asyncio.sleep(BURST_SECONDS + 0.1)


async def test_each_usage_is_paid_for_and_what_is_unused_is_returned(valkey: Server) -> None:
    rate, sent = 50.0, 60
    async with run_pools(endpoint_of(valkey), 2) as pools:
        for _ in range(sent // 2):
            assert await send(pools[0], rate)
            assert await send(pools[1], rate)
        await poll_until(
            lambda: not any(entry.portion_count for entry in pools), "portions to be forgotten"
        )
    assert read_record(valkey).taken == sent


async def test_a_process_that_stops_pays_and_returns(valkey: Server) -> None:
    async with run_pools(endpoint_of(valkey)) as (pool,):
        for _ in range(30):
            assert await send(pool, 50.0)
    assert read_record(valkey).taken == 30


async def test_keys_name_no_client_and_expire(valkey: Server) -> None:
    async with run_pools(endpoint_of(valkey)) as (pool,):
        assert await send(pool, 5.0)
        assert await pool.charge([pool.find("tenant", CLIENT, 5.0)], 1) is None
    keys = valkey.command("KEYS", "*rate*")
    assert len(keys) == 2, "a credential and a tenant of one name are two clients"
    for key in keys:
        assert len(key) == len("busyapi:{0}:rate:") + 32
        assert MARK not in key
        assert MARK not in valkey.command("GET", key)
        assert 0 < valkey.command("PTTL", key) <= (BURST_SECONDS + 10) * 1000


async def test_a_batch_is_all_or_none_and_a_large_one_leaves_a_debt(valkey: Server) -> None:
    rate = 10.0
    async with run_pools(endpoint_of(valkey), 2) as (one, two):
        assert await send(one, rate, 500)
        for pool in (one, two):
            excess = await pool.charge([pool.find("credential", CLIENT, rate)], 30)
            assert excess is not None
            assert 45 < excess.seconds <= 49, "until half of a full bucket"
        assert read_record(valkey).taken == 500
        await asyncio.sleep(0.3)
        assert not await send(one, rate)


async def test_the_limit_that_refuses_is_named_and_the_other_is_not_charged(
    valkey: Server,
) -> None:
    async with run_pools(endpoint_of(valkey)) as (pool,):
        wide, narrow = pool.find("credential", "wide", 50.0), pool.find("tenant", "n", 0.5)
        assert await pool.charge([wide, narrow], 1) is None
        for _ in range(30):
            excess = await pool.charge([wide, narrow], 1)
            assert excess is not None
            assert excess.policy == "tenant"
            assert not pool.try_charge([wide, narrow], 1)
        assert wide.describe(asyncio.get_running_loop().time()).remaining > 90


async def test_without_redis_a_process_allows_its_share(valkey: Server) -> None:
    rate = 20.0
    async with run_pools(endpoint_of(valkey), 2) as pools:
        await asyncio.gather(*(flood(entry, rate, 2, 0.005) for entry in pools))
        valkey.kill9()
        loop = asyncio.get_running_loop()
        began = loop.time()
        counts = await asyncio.gather(
            flood(pools[0], rate, 3, 0.005), flood(pools[1], rate, 3, 0.005)
        )
        elapsed = loop.time() - began
        # Each has at least a tenth, and both together about what they had before.
        assert all(count >= 0.1 * rate * 2 for count in counts)
        assert sum(counts) <= 2 * rate * BURST_SECONDS + 1.2 * rate * elapsed
        valkey.start()
        await poll_until(lambda: not pools[0].is_local, "the rate to be shared again")
        before = read_clock(valkey)
        allowed = sum(await asyncio.gather(*(flood(entry, rate, 2, 0.005) for entry in pools)))
        elapsed = read_clock(valkey) - before
        assert allowed <= rate * BURST_SECONDS * 2 + rate * elapsed


async def test_a_process_that_redis_never_answered_allows_the_whole_rate() -> None:
    rate = 20.0
    async with run_pools(parse_redis_url(f"redis://127.0.0.1:{reserve_port()}")) as (pool,):
        counts = [await send(pool, rate) for _ in range(200)]
        assert pool.is_local
        burst = round(rate * BURST_SECONDS)
        assert counts[: burst - 1] == [True] * (burst - 1)
        assert not all(counts)


async def test_a_missing_right_is_logged_and_leaves_the_whole_rate(tmp_path: Path) -> None:
    """Cover an upgrade in which the API's user may not run TIME yet."""
    acl = ("user default on nopass ~* &* +@all -time",)
    with Server(tmp_path / "server", "valkey", acl=acl) as server:
        async with run_pools(endpoint_of(server)) as (pool,):
            with capture_logs() as logs:
                counts = [await send(pool, 20.0) for _ in range(30)]
            assert all(counts)
            assert pool.is_local
    (event,) = logs
    assert event["event"] == "rates_local"
    assert "'time'" in event["detail"]


async def test_a_silent_server_delays_one_request_by_a_second_and_no_other(
    valkey: Server,
) -> None:
    async with run_pools(endpoint_of(valkey)) as (pool,):
        assert await send(pool, 0.01)
        valkey.pause()
        assert not await send(pool, 0.01)
        await poll_until(lambda: pool.is_local, "the process to decide by itself")
        for _ in range(100):
            assert not await send(pool, 0.01)
        valkey.resume()
        await poll_until(lambda: not pool.is_local or not pool.portion_count, "Redis")


async def test_buckets_are_spread_over_the_partitions_of_a_cluster(tmp_path: Path) -> None:
    with ClusterOfThree(tmp_path) as cluster:
        async with run_pools(endpoint_of(cluster), 2, partitions=4) as pools:
            clients = [f"client-{n}" for n in range(40)]
            for client in clients:
                # Four usages of a burst of two.
                counts = [await send(entry, 1.0, client=client) for entry in pools * 2]
                assert 2 <= sum(counts) <= 3
        keys = [node.command("KEYS", "*rate*") for node in cluster.primaries]
    assert sum(map(len, keys)) == len(clients)
    assert sum(map(bool, keys)) > 1
    assert {key.split("}")[0] for node in keys for key in node} == {
        f"busyapi:{{{n}" for n in range(4)
    }
