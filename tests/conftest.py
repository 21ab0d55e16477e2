"""Fixtures: real servers and our own processes, each test's in its own folder."""

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
    "docs/test_readme.py": "servers",
    "docs/test_runbook_commands.py": "servers",
    "docs/test_runbook_faults.py": "servers",
    "e2e": "tools",
    "loadtest": "tools",
    "observability": "alerts",
    "release": "tools",
    "testkit": "tools",
    "tools": "tools",
    "unit/archive/test_crash.py": "servers",
    "unit/bench": "tools",
    "unit/perf": "tools",
}
"""The marker of each test in a file or folder. pyproject.toml says what a marker is for."""

# A busy machine is no failure: examples may take their time, the run as a whole may not.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test before pytest selects by markers."""
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue  # a test that a test has written
        path = item.path.relative_to(TESTS)
        for place in (path, *path.parents):
            if marker := MARKERS.get(str(place)):
                item.add_marker(marker)


@pytest.fixture(scope="session", autouse=True)
def nothing_sent_is_logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of a run, or of a worker of it, when all processes are gone, search their logs."""
    yield
    if found := find_leaks(tmp_path_factory.getbasetemp(), STARTED_LOGS):
        pytest.fail("logged, and was sent:\n" + "\n".join(found), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> Iterator[None]:
    Process.fork_server = server = ForkServer()
    yield
    Process.fork_server = None
    server.close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    """A running Valkey."""
    with Server(tmp_path / "valkey", "valkey") as server:
        yield server


@pytest.fixture
def redis7(tmp_path: Path) -> Iterator[Server]:
    """A running Redis 7.0, the oldest that is supported."""
    with Server(tmp_path / "redis", "redis") as server:
        yield server


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each flavour in turn, for a test that makes its own servers."""
    chosen: Flavour = request.param
    return chosen


@pytest.fixture
def any_server(tmp_path: Path, flavour: Flavour) -> Iterator[Server]:
    """A running server of each flavour in turn."""
    with Server(tmp_path / flavour, flavour) as server:
        yield server


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Stacks]:
    """A maker of running stacks: `stacks(store, apis=2, partitions=1, settings={...})`."""
    with ExitStack() as running:

        def make(store: Store, **options: Any) -> Stack:
            folder = tmp_path / f"stack-{len(made)}"
            made.append(stack := Stack(folder, store, **options))
            return running.enter_context(stack)

        made: list[Stack] = []
        yield make
