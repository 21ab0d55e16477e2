"""A loaded stack on this machine: two API processes, two partitions, a Prometheus that looks.

The load is bounded and paced, with what there is to see: batches, requests that are refused, a
Valkey that stands still for a moment, a flusher that is away for some seconds.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from testkit.processes import Stack
from testkit.prometheus import Prometheus, chart_rules
from testkit.servers import Server

RULES = Path(__file__).parents[2] / "charts" / "busyapi" / "files" / "rules.yaml"
SETTINGS = {"BUSYAPI_SEGMENT_BYTES": str(64 * 1024), "BUSYAPI_BOUND": "200000"}
STEP = 0.05
"""Seconds between two bursts of the load."""

USAGE = {
    "patientId": "100",
    "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
    "medication": "Albuterol",
}
MAX_UNDER_WAY = 500
STANDS_STILL = 0.4
AWAY = 6.0


def rate_at(part: float) -> float:
    """Give requests a second at a part of the run, from 0 to 1: two hills."""
    return 250 + 350 * math.sin(2 * math.pi * part) ** 2


class LoadedStack(NamedTuple):
    """All of it, while it runs."""

    valkey: Server
    stack: Stack
    prometheus: Prometheus

    def load(self, seconds: float) -> None:
        """Load it for so long, with its two incidents."""
        asyncio.run(self._load(seconds))

    async def _load(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_requests(self.stack.port, seconds))
            tasks.create_task(_at(seconds * 0.35, self._stand_still))
            tasks.create_task(_at(seconds * 0.6, self._be_away))

    def _stand_still(self) -> None:
        self.valkey.pause()
        time.sleep(STANDS_STILL)
        self.valkey.resume()

    def _be_away(self) -> None:
        flusher = self.stack.flushers[0]
        flusher.stop()
        time.sleep(AWAY)
        flusher.start()


@contextmanager
def running(folder: Path) -> Iterator[LoadedStack]:
    """Start all of it; afterwards none of it runs."""
    with (
        Server(folder / "valkey") as valkey,
        Stack(folder, valkey, apis=2, partitions=2, settings=SETTINGS) as stack,
        Prometheus(folder / "prometheus", stack, chart_rules()) as prometheus,
    ):
        yield LoadedStack(valkey, stack, prometheus)


async def _at(seconds: float, incident: Callable[[], None]) -> None:
    await asyncio.sleep(seconds)
    await asyncio.to_thread(incident)


async def _requests(port: int, seconds: float) -> None:
    url, drawn = f"http://127.0.0.1:{port}/api/usages", random.Random(1)
    began, owed = time.monotonic(), 0.0
    limit = aiohttp.TCPConnector(limit=MAX_UNDER_WAY)
    async with aiohttp.ClientSession(connector=limit) as session, asyncio.TaskGroup() as tasks:
        under_way: set[asyncio.Task[None]] = set()
        while (gone := time.monotonic() - began) < seconds:
            owed = min(owed + rate_at(gone / seconds) * STEP, MAX_UNDER_WAY - len(under_way))
            for _ in range(int(owed)):
                task = tasks.create_task(_request(session, url, drawn))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            owed -= int(owed)
            await asyncio.sleep(STEP)


async def _request(session: aiohttp.ClientSession, url: str, drawn: random.Random) -> None:
    chance = drawn.random()
    if chance < 0.005:
        asked = session.get(f"{url}/{drawn.randint(1, 2_000)}")
    elif chance < 0.04:
        asked = session.post(url, json={**USAGE, "medication": 7})
    elif chance < 0.1:
        asked = session.post(f"{url}/batch", json=[USAGE] * drawn.choice([5, 20, 100]))
    else:
        body = json.dumps(USAGE)
        asked = session.post(url, data=body, headers={"Content-Type": "application/json"})
    async with asked as answer:
        await answer.read()
