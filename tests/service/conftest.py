"""Two stacks for every test of the HTTP contract, and API processes beside it with other settings.

Tests that stop, pause or fill something start their own: `stacks`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from busyapi.settings import SWITCH
from tests.support.ports import free_port
from tests.support.processes import Api, Stack
from tests.support.servers import Server

Apis = Callable[..., Api]


@pytest.fixture(scope="session", params=SWITCH)
def contract(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running stack with the default settings, with the fast lane and without it."""
    folder = tmp_path_factory.mktemp("contract")
    settings = {"BUSYAPI_FAST_LANE": request.param}
    with (
        Server(folder / "valkey") as server,
        Stack(folder / "stack", server, settings=settings) as stack,
    ):
        yield stack


@pytest.fixture(scope="module")
def beside(contract: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    """A maker of API processes on the same partition, each on a port of its own."""
    folder = tmp_path_factory.mktemp("beside")
    with ExitStack() as running:

        def make(**settings: str) -> Api:
            port = free_port()
            environment = {**(contract.apis[0].environment or {}), **settings}
            return running.enter_context(Api(folder, f"api-{port}", port, environment))

        yield make
