"""Two stacks for every test of the HTTP contract, and API processes with other settings.

Tests that stop, pause or fill something start their own stack: `stacks`.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from busyapi.flusher import retry
from busyapi.settings import SWITCH
from testkit.jwt_issuer import Issuer
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.proxied_server import ProxiedServer, set_reply_timeout
from testkit.proxy import Proxy
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.trio import Trio, count_online
from testkit.waiting import wait_until

StartApi = Callable[..., Api]


@pytest.fixture(scope="session")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stack]]:
    """Running stacks with the default settings, with the fast path and without it."""
    with ExitStack() as running:
        stacks = {}
        for switch in SWITCH:
            folder = tmp_path_factory.mktemp(f"contract-{switch}")
            server = running.enter_context(Server(folder / "valkey"))
            stack = Stack(folder / "stack", server, settings={"BUSYAPI_FAST_PATH": switch})
            stacks[switch] = running.enter_context(stack)
        yield stacks


@pytest.fixture(scope="module", params=SWITCH)
def contract(request: pytest.FixtureRequest, contracts: dict[str, Stack]) -> Stack:
    """One of the two stacks."""
    return contracts[request.param]


@pytest.fixture(scope="module")
def start_api(contract: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartApi]:
    """A function that starts an API process on the same partition, on a port of its own."""
    folder = tmp_path_factory.mktemp("apis")
    with ExitStack() as running:

        def make(**settings: str) -> Api:
            port = reserve_port()
            environment = {**(contract.apis[0].environment or {}), **settings}
            return running.enter_context(Api(folder, f"api-{port}", port, environment))

        yield make


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """An issuer of JWTs with keys of its own."""
    return Issuer()


@pytest.fixture(scope="module")
def jwks(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the issuer's keys."""
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_text(issuer.key_set())
    return path


@pytest.fixture(scope="module")
def jwt_api(start_api: StartApi, issuer: Issuer, jwks: Path) -> Api:
    """A process that accepts the issuer's tokens. Each request may have its own address."""
    return start_api(**issuer.settings(str(jwks)), BUSYAPI_TRUSTED_PROXIES="127.0.0.0/8")


@pytest.fixture
async def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProxiedServer]:
    flavour: Flavour = getattr(request, "param", "valkey")
    with Server(tmp_path / "server", flavour) as server, Proxy(server.port) as proxy:
        proxied = ProxiedServer(server, proxy, tmp_path / "archive")
        assert await proxied.reseed() == "fresh install"
        yield proxied


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop a connection to a silent server after half a second."""
    set_reply_timeout(monkeypatch, 0.5)


@pytest.fixture(params=FLAVOURS)
async def trio(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Trio]:
    """Run a primary with two replicas, and inspect them twice per second."""
    monkeypatch.setattr(retry, "SETTLED_INTERVAL_SECONDS", 0.5)
    monkeypatch.setattr("busyapi.commit.committer.RECHECK_INTERVAL_SECONDS", 0.5)
    trio = Trio(tmp_path, request.param)
    with ExitStack() as running:
        for server in (trio.primary, *trio.replicas):
            running.enter_context(server)
        wait_until(lambda: count_online(trio.primary) == 2, "two replicas to be online")
        yield trio
