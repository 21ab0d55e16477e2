"""Fixtures: real servers and processes of busyapi. Each test has its own folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from testkit.fork_server import ForkServer
from testkit.log_leaks import STARTED_LOGS, find_leaks
from testkit.processes import Process, Stack, Store
from testkit.servers import FLAVOURS, Flavour, Server

Stacks = Callable[..., Stack]

TESTS = Path(__file__).parent
MARKERS = {
    "chart": "chart",
    "crash/test_promotion.py": "faults",
    "docs/test_readme.py": "servers",
    "docs/test_runbook_commands.py": "faults",
    "docs/test_runbook_faults.py": "faults",
    "e2e": "tools",
    "loadtest": "tools",
    "observability": "alerts",
    "readers": "readers",
    "release": "tools",
    "service/test_api_openapi.py": "faults",
    "service/test_api_rates.py": "faults",
    "service/test_commit_replicated.py": "faults",
    "service/test_dev_failures.py": "faults",
    "service/test_dns.py": "faults",
    "service/test_error_memory.py": "faults",
    "service/test_flusher_backlog.py": "faults",
    "service/test_flusher_ownership.py": "faults",
    "service/test_flusher_torn_or_damaged.py": "faults",
    "service/test_flusher_verify.py": "faults",
    "service/test_large_bodies.py": "faults",
    "service/test_portion_pool.py": "faults",
    "service/test_stream_durability.py": "faults",
    "service/test_stream_lease.py": "faults",
    "service/test_topologies.py": "faults",
    "testkit": "tools",
    "tools": "tools",
    "unit/archive/test_crash.py": "servers",
    "unit/archive/test_full_volume.py": "servers",
    "unit/bench": "tools",
    "unit/perf": "tools",
}
"""Folders and files with the marker of their tests. pyproject.toml explains the markers."""

# A slow example on a busy machine is no failure. Only the run as a whole has a time limit.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test before pytest selects by markers."""
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue  # a test that another test has written
        path = item.path.relative_to(TESTS)
        for place in (path, *path.parents):
            if marker := MARKERS.get(str(place)):
                item.add_marker(marker)


@pytest.fixture(scope="session", autouse=True)
def nothing_sent_is_logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Search the logs of all processes at the end of a run, or of one worker of it."""
    yield
    if lines := find_leaks(tmp_path_factory.getbasetemp(), STARTED_LOGS):
        pytest.fail("sent data was logged:\n" + "\n".join(lines), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> Iterator[None]:
    Process.fork_server = server = ForkServer()
    yield
    Process.fork_server = None
    server.close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    """Yield a running Valkey."""
    with Server(tmp_path / "valkey", "valkey") as server:
        yield server


@pytest.fixture
def redis7(tmp_path: Path) -> Iterator[Server]:
    """Yield a running Redis 7.0, the oldest supported version."""
    with Server(tmp_path / "redis", "redis") as server:
        yield server


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Return each flavour in turn, for a test that starts its own servers."""
    flavour: Flavour = request.param
    return flavour


@pytest.fixture
def any_server(tmp_path: Path, flavour: Flavour) -> Iterator[Server]:
    """Yield a running server of each flavour in turn."""
    with Server(tmp_path / flavour, flavour) as server:
        yield server


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Stacks]:
    """Yield a function that starts stacks: `stacks(store, apis=2, settings={...})`."""
    with ExitStack() as running:

        def make(store: Store, **options: Any) -> Stack:
            folder = tmp_path / f"stack-{len(started)}"
            started.append(stack := Stack(folder, store, **options))
            return running.enter_context(stack)

        started: list[Stack] = []
        yield make
