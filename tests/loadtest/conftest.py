"""A small stack for the load of the tests in this folder, one after the other."""

from collections.abc import Iterator

import pytest

from loadtest.target import Target
from testkit.processes import Stack
from testkit.servers import Server


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Server(folder / "valkey") as server, Stack(folder / "stack", server) as running:
        yield running


@pytest.fixture
def target(stack: Stack) -> Target:
    return Target(f"http://127.0.0.1:{stack.port}", archive=stack.archive)


@pytest.fixture
def target_options(stack: Stack) -> list[str]:
    """Return the options that name the stack."""
    return [f"--url=http://127.0.0.1:{stack.port}", f"--archive={stack.archive}"]
