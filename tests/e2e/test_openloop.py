"""The load of the cluster's scenarios, against a server that fails on purpose."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from e2e.openloop import BATCH_USAGES, OpenLoop
from testkit.certificates import Certificates, make_certificates
from testkit.http1 import Tls
from testkit.ports import reserve_port
from testkit.processes import Stack
from testkit.servers import Server
from testkit.stamping import StampedClient
from testkit.threads import LoopThread
from testkit.waiting import wait_until

RATE = 100.0


class BadServer:
    """Answers 201 with rising ids, and every tenth request with a given reply."""

    def __init__(
        self, bad: bytes, late: float = 0.0, *, certificates: Certificates | None = None
    ) -> None:
        self.bad = bad
        self._tls: ssl.SSLContext | None = None
        if certificates:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificates.certificate, certificates.key)
        self.late = late
        """Seconds before each reply."""
        self.port = reserve_port()
        self.requests = 0
        self.hosts: set[str] = set()
        self.tokens: list[str] = []
        self.connections = 0
        self._loop = LoopThread("server")
        self._loop.start()
        self._loop.run_step(self._listen)

    async def _listen(self) -> None:
        await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.rpartition("Content-Length: ")[2])
                await reader.readexactly(length)
                self.hosts.add(head.partition("Host: ")[2].splitlines()[0])
                self.tokens.append(head.partition("Bearer ")[2].partition("\r\n")[0])
                self.requests += 1
                number = self.requests
                await asyncio.sleep(self.late)
                body = b'{"id":%d}' % number
                answer = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                writer.write(self.bad if number % 10 == 0 else answer)
                if number % 10 == 0 and not self.bad:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    def close(self) -> None:
        self._loop.close()


@pytest.fixture(
    params=[b"", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"], ids=["reset", "502"]
)
def server(request: pytest.FixtureRequest) -> Iterator[BadServer]:
    server = BadServer(request.param)
    yield server
    server.close()


def test_every_request_is_counted_and_none_is_repeated(server: BadServer) -> None:
    with OpenLoop(server.port, "somewhere.test", RATE) as load:
        time.sleep(1.0)
        figures = load.stop()
    assert server.hosts == {"somewhere.test"}
    assert figures.sent == server.requests == figures.answered + figures.failed
    assert figures.failed == server.requests // 10 > 0
    assert len({request.digests for request in load.history.requests}) == figures.sent


def test_a_refused_connection_is_a_failure_and_not_in_the_history() -> None:
    with OpenLoop(reserve_port(), "nowhere.test", RATE) as load:
        time.sleep(0.3)
        figures = load.stop()
    assert figures.failed == figures.sent > 0
    assert not load.history.requests


def test_the_rate_does_not_depend_on_replies() -> None:
    server = BadServer(b"", late=5.0)
    began = time.monotonic()
    with OpenLoop(server.port, "somewhere.test", RATE) as load:
        wait_until(lambda: load.offered >= 50, "half a second's requests")
        assert not load.samples
        load.stop()
    server.close()
    assert load.offered <= RATE * (time.monotonic() - began) + 1


def test_requests_have_the_tokens_in_turn(server: BadServer) -> None:
    clients = [StampedClient(name, f"writer {name}") for name in ("one", "two", "three")]
    with OpenLoop(server.port, "somewhere.test", RATE, clients=clients[:2]) as load:
        wait_until(lambda: load.offered >= 20, "twenty requests")
        load.clients = tuple(clients[2:])
        wait_until(lambda: server.tokens[-1:] == ["three"], "a request with the new token")
        load.stop()
    turns = server.tokens[: server.tokens.index("three")]
    assert abs(turns.count("one") - turns.count("two")) <= 2
    assert set(turns) == {"one", "two"}
    writers = Counter(request.writer for request in load.history.requests)
    assert writers == Counter(f"writer {name}" for name in server.tokens)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_the_certificate_is_verified_by_each_connection(tmp_path: Path, keep_alive: bool) -> None:  # noqa: FBT001
    certificates = make_certificates(tmp_path)
    server = BadServer(b"", certificates=certificates)
    context = ssl.create_default_context(cafile=certificates.ca)
    figures = {}
    for name in ("localhost", "another.test"):
        tls = Tls(context, name)
        with OpenLoop(server.port, "a.test", RATE, tls=tls, keep_alive=keep_alive) as load:
            wait_until(lambda: load.offered >= 20, "twenty requests")
            figures[name] = load.stop()
    server.close()
    assert figures["localhost"].answered == server.requests - server.requests // 10 > 0
    assert (server.connections >= server.requests) == (not keep_alive)
    assert figures["another.test"].answered == 0


def test_a_mixed_load_is_every_kind_of_post_and_is_reconciled(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server, Stack(tmp_path, server) as stack:
        with OpenLoop(stack.port, "somewhere.test", RATE, mixed=True) as load:
            wait_until(lambda: load.offered >= 40, "forty requests")
            figures = load.stop()
        stack.wait_until_archived()
        issued = server.command("GET", PartitionKeys(0).seq)
        stack.stop()
        verdict = stack.check_history(load.history)
    assert verdict.ok, verdict
    assert figures.failed == 0
    sizes = {len(request.digests) for request in load.history.requests}
    assert sizes == {1, BATCH_USAGES}
    assert int(issued) == verdict.archived == load.history.acknowledged
