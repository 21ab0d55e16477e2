"""A loaded stack on this machine: two API processes, two partitions, and a Prometheus.

The load is bounded and paced. It contains batches and invalid requests. Valkey pauses for a moment,
and a flusher is stopped for some seconds.
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
STEP_SECONDS = 0.05
"""Between two bursts of the load."""

USAGE = {
    "patientId": "100",
    "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
    "medication": "Albuterol",
}
MAX_PENDING_REQUESTS = 500
VALKEY_PAUSE_SECONDS = 0.4
FLUSHER_STOP_SECONDS = 6.0


def compute_rate(part: float) -> float:
    """Return requests per second at a part of the run, from 0 to 1: two peaks."""
    return 250 + 350 * math.sin(2 * math.pi * part) ** 2


class LoadedStack(NamedTuple):
    """A running stack."""

    valkey: Server
    stack: Stack
    prometheus: Prometheus

    def load(self, seconds: float) -> None:
        """Load the stack for this time, with two incidents."""
        asyncio.run(self._load(seconds))

    async def _load(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_requests(self.stack.port, seconds))
            tasks.create_task(_at(seconds * 0.35, self._pause_valkey))
            tasks.create_task(_at(seconds * 0.6, self._stop_flusher))

    def _pause_valkey(self) -> None:
        self.valkey.pause()
        time.sleep(VALKEY_PAUSE_SECONDS)
        self.valkey.resume()

    def _stop_flusher(self) -> None:
        flusher = self.stack.flushers[0]
        flusher.stop()
        time.sleep(FLUSHER_STOP_SECONDS)
        flusher.start()


@contextmanager
def run_loaded_stack(folder: Path) -> Iterator[LoadedStack]:
    """Start a stack and its Prometheus, and stop them afterwards."""
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
    limit = aiohttp.TCPConnector(limit=MAX_PENDING_REQUESTS)
    async with aiohttp.ClientSession(connector=limit) as session, asyncio.TaskGroup() as tasks:
        under_way: set[asyncio.Task[None]] = set()
        while (gone := time.monotonic() - began) < seconds:
            owed = min(
                owed + compute_rate(gone / seconds) * STEP_SECONDS,
                MAX_PENDING_REQUESTS - len(under_way),
            )
            for _ in range(int(owed)):
                task = tasks.create_task(_request(session, url, drawn))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            owed -= int(owed)
            await asyncio.sleep(STEP_SECONDS)


async def _request(session: aiohttp.ClientSession, url: str, drawn: random.Random) -> None:
    chance = drawn.random()
    if chance < 0.005:
        options = session.get(f"{url}/{drawn.randint(1, 2_000)}")
    elif chance < 0.04:
        options = session.post(url, json={**USAGE, "medication": 7})
    elif chance < 0.1:
        options = session.post(f"{url}/batch", json=[USAGE] * drawn.choice([5, 20, 100]))
    else:
        body = json.dumps(USAGE)
        options = session.post(url, data=body, headers={"Content-Type": "application/json"})
    async with options as answer:
        await answer.read()
