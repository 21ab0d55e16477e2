"""What is refused leaves nothing behind, however many are refused and for whatever reason."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from busyapi.stream.scripts import COMMIT
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
EACH = 60_000
"""Bytes of a request: what a refusal that stays would keep."""
POSTS = (
    render_post("/api/usages", json.dumps({**SMALL, "note": "n" * EACH}).encode()),
    render_post(
        "/api/usages/batch", json.dumps([{**SMALL, "note": "n" * (EACH // 100)}] * 100).encode()
    ),
)
FEW, MANY = 800, 10_000
CONNECTIONS = 16
MAX_GROWTH = 12 << 20
"""Bytes. A quarter of what FEW requests are, and a fiftieth of MANY."""

Kind = Callable[[Path], AbstractContextManager[Api]]


@contextmanager
def alone(folder: Path, url: str, **settings: str) -> Iterator[Api]:
    """Run an API process that will not become ready."""
    given = {"BUSYAPI_REDIS_URL": url, "BUSYAPI_DRAIN_DELAY": "0", "BUSYAPI_COMMIT_DEADLINE": "1"}
    api = Api(folder, "api", reserve_port(), given | settings)
    with ExitStack() as running:
        running.callback(api.close)
        api.spawn()
        wait_until(lambda: listens(api), "the process to listen", seconds=20)
        yield api


def listens(api: Api) -> bool:
    with suppress(OSError):
        return api.read_metric("busyapi_build_info") == 1
    return False


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[tuple[Api, Server]]:
    """Run a stack whose flusher is gone when all were ready."""
    server = Server(folder / "server")
    with server, Stack(folder / "stack", server, settings=settings) as stack:
        stack.flushers[0].kill9()
        yield stack.apis[0], server


@contextmanager
def redis_away(folder: Path) -> Iterator[Api]:
    with alone(folder, f"redis://127.0.0.1:{reserve_port()}") as api:
        yield api


@contextmanager
def not_seeded(folder: Path) -> Iterator[Api]:
    with Server(folder / "server") as server, alone(folder, server.url) as api:
        yield api


@contextmanager
def too_weak(folder: Path) -> Iterator[Api]:
    server = Server(folder / "server", config=["appendfsync everysec"])
    with server, alone(folder, server.url) as api:
        yield api


@contextmanager
def buffer_full(folder: Path) -> Iterator[Api]:
    with running(folder) as (api, server):
        server.command("HSET", STATE, "bound", 0)
        yield api


@contextmanager
def memory_full(folder: Path) -> Iterator[Api]:
    with running(folder) as (api, server):
        server.command("CONFIG", "SET", "maxmemory", 1)
        yield api


@contextmanager
def overloaded(folder: Path) -> Iterator[Api]:
    with running(folder, BUSYAPI_PENDING_BYTES="2") as (api, _):
        yield api


@contextmanager
def stored_unknown(folder: Path) -> Iterator[Api]:
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
    "RedisUnavailable": (redis_away, "no"),
    "NotSeeded": (not_seeded, "no"),
    "DurabilityNotMet": (too_weak, "no"),
    "BufferFull": (buffer_full, "no"),
    "memory": (memory_full, "no"),
    "Overloaded": (overloaded, "no"),
    "OutcomeUnknown": (stored_unknown, "unknown"),
}


def resident(api: Api) -> int:
    """Return the bytes of memory that a process has."""
    for line in Path(f"/proc/{api.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(api)


def refuse(api: Api, count: int) -> list[str]:
    """Post large usages and batches in turn; return what each answer says of `stored`."""
    said: list[str] = []

    async def converse(number: int) -> None:
        async with Connection(api.port) as connection:
            for n in range(count // CONNECTIONS):
                answer = await connection.ask(POSTS[(number + n) % 2], 30)
                said.append(answer.json().get("stored", f"{answer.status}"))

    async def together() -> None:
        await asyncio.gather(*map(converse, range(CONNECTIONS)))

    asyncio.run(together())
    return said


def growth(api: Api, count: int, stored: str) -> int:
    """Return by how many bytes a process grows while it refuses."""
    # A request waits for a lost connection for a second; from then on it is refused at once.
    wait_until(lambda: stored in refuse(api, CONNECTIONS), "refusals of that kind", seconds=20)
    refuse(api, FEW // 4)
    before = resident(api)
    said = refuse(api, count)
    # Between two lost answers some may pass, or be refused for the lost connection.
    assert said.count(stored) > len(said) // 4, said
    return resident(api) - before


@pytest.mark.parametrize("kind", KINDS)
def test_refused_requests_leave_no_memory_behind(tmp_path: Path, kind: str) -> None:
    make, stored = KINDS[kind]
    with make(tmp_path) as api:
        assert growth(api, FEW, stored) < MAX_GROWTH


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_refused_requests_leave_no_memory_behind(tmp_path: Path, kind: str) -> None:
    make, stored = KINDS[kind]
    with make(tmp_path) as api:
        assert growth(api, MANY, stored) < MAX_GROWTH


@pytest.mark.mutants
def test_refusal_that_is_raised_twice_is_noticed(tmp_path: Path) -> None:
    build = broken_build(mutants.raise_one_refusal_twice)
    with alone(tmp_path, f"redis://127.0.0.1:{reserve_port()}", **build) as api:
        assert growth(api, 2 * FEW, "no") > 2 * MAX_GROWTH
