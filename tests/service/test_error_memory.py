"""Refused requests leave no memory behind, whatever their number and reason."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from busyapi.stream.scripts import COMMIT
from perf.procfs import resident_bytes
from testkit import mutants
from testkit.broken_build import broken_build
from testkit.http1 import Connection, render_post
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.waiting import wait_until

STATE = PartitionKeys(0).state
SMALL = {"patientId": "1", "timestamp": 0, "medication": "x"}
REQUEST_BYTES = 60_000
"""Bytes of a request, which a leaked refusal would keep."""
POSTS = (
    render_post("/api/usages", json.dumps({**SMALL, "note": "n" * REQUEST_BYTES}).encode()),
    render_post(
        "/api/usages/batch",
        json.dumps([{**SMALL, "note": "n" * (REQUEST_BYTES // 100)}] * 100).encode(),
    ),
)
FEW, MANY = 800, 10_000
CONNECTIONS = 16
MAX_GROWTH = 12 << 20
"""Bytes: a quarter of FEW requests, and a fiftieth of MANY."""

Kind = Callable[[Path], AbstractContextManager[Api]]


@contextmanager
def run_api_alone(folder: Path, url: str, **settings: str) -> Iterator[Api]:
    """Run an API process that will not become ready."""
    defaults = {
        "BUSYAPI_REDIS_URL": url,
        "BUSYAPI_DRAIN_DELAY": "0",
        "BUSYAPI_COMMIT_DEADLINE": "1",
    }
    api = Api(folder, "api", reserve_port(), defaults | settings)
    with ExitStack() as running:
        running.callback(api.close)
        api.spawn()
        wait_until(lambda: is_listening(api), "the process to listen", seconds=20)
        yield api


def is_listening(api: Api) -> bool:
    with suppress(OSError):
        return api.read_metric("busyapi_build_info") == 1
    return False


@contextmanager
def run_without_flusher(folder: Path, **settings: str) -> Iterator[tuple[Api, Server]]:
    """Run a stack and kill its flusher once all processes are ready."""
    server = Server(folder / "server")
    with server, Stack(folder / "stack", server, settings=settings) as stack:
        stack.flushers[0].kill9()
        yield stack.apis[0], server


@contextmanager
def redis_unavailable(folder: Path) -> Iterator[Api]:
    with run_api_alone(folder, f"redis://127.0.0.1:{reserve_port()}") as api:
        yield api


@contextmanager
def not_seeded(folder: Path) -> Iterator[Api]:
    with Server(folder / "server") as server, run_api_alone(folder, server.url) as api:
        yield api


@contextmanager
def durability_not_met(folder: Path) -> Iterator[Api]:
    server = Server(folder / "server", config=["appendfsync everysec"])
    with server, run_api_alone(folder, server.url) as api:
        yield api


@contextmanager
def buffer_full(folder: Path) -> Iterator[Api]:
    with run_without_flusher(folder) as (api, server):
        server.command("HSET", STATE, "bound", 0)
        yield api


@contextmanager
def memory_full(folder: Path) -> Iterator[Api]:
    with run_without_flusher(folder) as (api, server):
        server.command("CONFIG", "SET", "maxmemory", 1)
        yield api


@contextmanager
def overloaded(folder: Path) -> Iterator[Api]:
    with run_without_flusher(folder, BUSYAPI_PENDING_BYTES="2") as (api, _):
        yield api


@contextmanager
def outcome_unknown(folder: Path) -> Iterator[Api]:
    """Lose the answer to every commit."""
    ended = threading.Event()

    def lose(proxy: Proxy) -> None:
        while not ended.is_set():
            proxy.lose_answer(COMMIT.sha1.encode())
            with suppress(TimeoutError):
                proxy.wait_until_lost(0.2)

    with Server(folder / "server") as server, Proxy(server.port) as proxy:
        stack = Stack(folder / "stack", server, settings={"BUSYAPI_COMMIT_DEADLINE": "0.1"})
        stack.apis[0].environment["BUSYAPI_REDIS_URL"] = proxy.url
        thread = threading.Thread(target=lose, args=(proxy,))
        with stack:
            thread.start()
            try:
                yield stack.apis[0]
            finally:
                ended.set()
                thread.join(5)


KINDS: dict[str, tuple[Kind, str]] = {
    "RedisUnavailable": (redis_unavailable, "no"),
    "NotSeeded": (not_seeded, "no"),
    "DurabilityNotMet": (durability_not_met, "no"),
    "BufferFull": (buffer_full, "no"),
    "memory": (memory_full, "no"),
    "Overloaded": (overloaded, "no"),
    "OutcomeUnknown": (outcome_unknown, "unknown"),
}


def post_refused(api: Api, count: int) -> list[str]:
    """Post large usages and batches in turn; return the `stored` member of each answer."""
    outcomes: list[str] = []

    async def post_on_connection(number: int) -> None:
        async with Connection(api.port) as connection:
            for n in range(count // CONNECTIONS):
                answer = await connection.ask(POSTS[(number + n) % 2], 30)
                outcomes.append(answer.json().get("stored", f"{answer.status}"))

    async def post_on_all() -> None:
        await asyncio.gather(*map(post_on_connection, range(CONNECTIONS)))

    asyncio.run(post_on_all())
    return outcomes


def measure_growth(api: Api, count: int, stored: str) -> int:
    """Return by how many bytes a process grows while it refuses requests."""
    # A request waits one second for a lost connection; after that, requests are refused at once.
    wait_until(
        lambda: stored in post_refused(api, CONNECTIONS), "refusals of that kind", seconds=20
    )
    post_refused(api, FEW // 4)
    before = resident_bytes(api.pid)
    outcomes = post_refused(api, count)
    # Between two lost answers some are stored, or refused because of the lost connection: on a fast
    # machine five of six.
    assert outcomes.count(stored) > len(outcomes) // 8, outcomes
    return resident_bytes(api.pid) - before


@pytest.mark.parametrize("kind", KINDS)
def test_refused_requests_leave_no_memory_behind(tmp_path: Path, kind: str) -> None:
    make, stored = KINDS[kind]
    # A sixth of these have that outcome, and a leak of so many must exceed the limit.
    count = 2 * FEW if stored == "unknown" else FEW
    with make(tmp_path) as api:
        assert measure_growth(api, count, stored) < MAX_GROWTH


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_refused_requests_leave_no_memory_behind(tmp_path: Path, kind: str) -> None:
    make, stored = KINDS[kind]
    with make(tmp_path) as api:
        assert measure_growth(api, MANY, stored) < MAX_GROWTH


@pytest.mark.mutants
def test_refusal_that_is_raised_twice_is_caught(tmp_path: Path) -> None:
    build = broken_build(mutants.raise_one_refusal_twice)
    with run_api_alone(tmp_path, f"redis://127.0.0.1:{reserve_port()}", **build) as api:
        assert measure_growth(api, 2 * FEW, "no") > 2 * MAX_GROWTH
