"""Every port: its deadline, its errors, its connection limit, and the answer over the limit."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from busyapi.web.connection_refusal import MAX_REFUSALS
from busyapi.web.connections import MAX_LINGERING
from testkit.api_client import (
    BODY,
    RawConnection,
    check_problem,
    check_stored,
    check_unavailable,
    render_request,
)
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Process, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

DEADLINE = 1.0
LATE = 10 * DEADLINE
MANY = 400
"""More connections than a metrics port keeps."""


@pytest.fixture(scope="module")
def impatient_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a short deadline."""
    folder = tmp_path_factory.mktemp("ports")
    with (
        Server(folder / "valkey") as server,
        Stack(
            folder / "stack", server, settings={"BUSYAPI_REQUEST_DEADLINE": str(DEADLINE)}
        ) as stack,
    ):
        yield stack


@pytest.fixture
def start_impatient_api(impatient_stack: Stack, tmp_path: Path) -> Iterator[StartApi]:
    """A function that starts another API process of that stack."""
    with ExitStack() as running:

        def make(**settings: str) -> Api:
            api = Api(
                tmp_path,
                "api",
                reserve_port(),
                {**(impatient_stack.apis[0].environment), **settings},
            )
            api.environment.update(settings)
            return running.enter_context(api)

        yield make


PORTS: dict[str, Callable[[Stack], int]] = {
    "api": lambda stack: stack.port,
    "metrics": lambda stack: stack.apis[0].scrape_port,
    "flusher": lambda stack: stack.flushers[0].port,
}


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest, impatient_stack: Stack) -> int:
    """Each of the three ports in turn."""
    return PORTS[request.param](impatient_stack)


def count_threads(process: Process) -> int:
    """Return how many threads a process has."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("Threads:")[1].split()[0])


def count_files(process: Process) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


class TestErrors:
    """Sanic's own errors are problems on every port."""

    def test_an_unknown_path_is_404(self, port: int) -> None:
        for path in ("/nowhere", "/usages/" + "9" * 4301, "/usages/abc", "/../etc/passwd"):
            check_problem(fetch(port, path, headers={"accept": "text/html"}), 404)

    def test_a_wrong_method_is_405_before_the_body_has_come(self, port: int) -> None:
        path = "/openapi.json" if fetch(port, "/openapi.json").status == 200 else "/metrics"
        with RawConnection(port) as client:
            client.send(render_request("POST", path, headers=("Content-Length: 99000000",)))
            answer = client.read_answer()
        check_problem(answer, 405)
        assert "GET" in answer.headers["allow"]

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"BROKEN\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 413),
        ],
    )
    def test_broken_or_too_large(self, port: int, raw: bytes, status: int) -> None:
        with RawConnection(port) as client:
            client.send(raw)
            check_problem(client.read_answer(), status)

    def test_a_client_that_hangs_up_before_its_answer_causes_no_error(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        stack = stacks(valkey)
        api = stack.apis[0]
        for method in ("HEAD", "GET"):
            for _ in range(100):
                with RawConnection(stack.port) as client:
                    client.send(render_request(method, "/livez") * 30)
                    client.reset()
        assert fetch(stack.port, "/livez").status == 200
        assert b"library_log" not in api.log.read_bytes()


class TestDeadline:
    """A request that is not complete within the deadline gets 408."""

    @pytest.mark.parametrize(
        "begun",
        [
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ",
            b"GET /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
        ],
        ids=["header", "body"],
    )
    def test_single_bytes_do_not_extend_it(self, port: int, begun: bytes) -> None:
        path = b"livez" if fetch(port, "/livez").status == 200 else b"metrics"
        with RawConnection(port) as client:
            started = time.monotonic()
            client.send(begun.replace(b"%b", path))
            sent = client.drip(b"x" * 1000, DEADLINE / 10)
            assert sent < 1000
            assert time.monotonic() - started < LATE
            if client.has_data():
                check_problem(client.read_answer(), 408)
            assert client.is_closed_within(LATE)


class TestMetrics:
    """The event loop of an API process serves its metrics port."""

    def test_silent_connections_use_no_thread_and_do_not_block_a_scrape(
        self, impatient_stack: Stack
    ) -> None:
        api = impatient_stack.apis[0]
        before = count_threads(api)
        with ExitStack() as clients:
            silent = [clients.enter_context(RawConnection(api.scrape_port)) for _ in range(MANY)]
            for client in silent[::2]:
                client.send(b"GET")
            assert api.read_metric("busyapi_build_info") == 1
            assert count_threads(api) == before
            # The newest connections stay until the deadline; the older ones were closed.
            assert not silent[0].is_answered_within(0.5)
            begun = silent[::2]
            wait_until(
                lambda: all(client.is_closed() for client in begun),
                "unfinished requests to be closed",
            )
        assert impatient_stack.apis[0].log.read_bytes().count(b"Traceback") == 0

    def test_a_slow_scrape_is_answered_while_connections_keep_arriving(
        self, impatient_stack: Stack
    ) -> None:
        api = impatient_stack.apis[0]
        scrape = render_request("GET", "/metrics")
        with ExitStack() as clients, RawConnection(api.scrape_port) as slow:
            slow.send(scrape[:9])
            for _ in range(MANY // 4):
                clients.enter_context(RawConnection(api.scrape_port)).send(b"GET")
            time.sleep(DEADLINE / 4)
            slow.send(scrape[9:])
            assert slow.read_answer().status == 200

    def test_a_flood_of_scrapes_does_not_block_the_event_loop(self, impatient_stack: Stack) -> None:
        """Requests share a rendering: four hundred requests need far fewer renderings."""
        api = impatient_stack.apis[0]
        clients = [RawConnection(api.scrape_port) for _ in range(100)]
        for client in clients:
            client.send(render_request("GET", "/metrics") * 4)
        started = time.monotonic()
        assert fetch(impatient_stack.port, "/livez").status == 200
        seconds = time.monotonic() - started
        bodies = {client.read_answer().body for client in clients}
        assert len(bodies) < 50
        assert seconds < LATE
        for client in clients:
            client.close()

    def test_ipv6(self, port: int) -> None:
        if not Path("/proc/net/if_inet6").exists():
            pytest.skip("a machine without IPv6")
        for host in ("::1", "127.0.0.1"):
            with socket.create_connection((host, port), 5) as client:
                client.sendall(render_request("GET", "/livez"))
                assert client.recv(20).startswith(b"HTTP/1.1 ")

    def test_a_used_port_ends_the_process(
        self, impatient_stack: Stack, start_impatient_api: StartApi
    ) -> None:
        used_port = str(impatient_stack.apis[0].scrape_port)
        with pytest.raises(RuntimeError, match=f"port {used_port}"):
            start_impatient_api(BUSYAPI_METRICS_PORT=used_port)


class TestConnectionLimit:
    """At the limit a new connection replaces an idle one, or is refused if none is idle."""

    def test_one_too_many_is_refused_with_an_answer_and_probes_are_answered(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        stack = stacks(valkey, settings={"BUSYAPI_MAX_CONNECTIONS": "8"})
        api = stack.apis[0]
        valkey.pause()
        with ExitStack() as clients:
            busy = [clients.enter_context(RawConnection(stack.port)) for _ in range(8)]
            for client in busy:
                client.send(render_request("POST", "/api/usages", BODY))
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 8, "all to be pending")
            for _ in range(3):
                # The body exceeds one packet, so closing at once would reset the connection.
                with RawConnection(stack.port) as client:
                    client.send(render_request("POST", "/api/usages", BODY + b" " * 200_000))
                    answer = client.read_answer()
                    assert answer.headers["connection"] == "close"
                    check_unavailable(answer, stored="no")
                    assert client.is_closed_within(5)
            assert fetch(stack.port, "/livez").body == b"loop: ok\n"
            assert fetch(stack.port, "/readyz").status == 200
            valkey.resume()
            for client in busy:
                check_stored(client.read_answer())
            # All are idle now, so the next is served and the longest idle one is closed.
            time.sleep(1.2)
            with RawConnection(stack.port) as client:
                client.send(render_request("POST", "/api/usages", BODY))
                check_stored(client.read_answer())
            assert sum(client.is_closed() for client in busy) == 1

    def test_slow_requests_are_closed_for_new_ones(self, stacks: Stacks, valkey: Server) -> None:
        settings = {"BUSYAPI_MAX_CONNECTIONS": "8", "BUSYAPI_REQUEST_DEADLINE": "8"}
        stack = stacks(valkey, settings=settings)
        with ExitStack() as clients:
            slow = [clients.enter_context(RawConnection(stack.port)) for _ in range(8)]
            for connection in slow:
                connection.send(render_request("POST", "/api/usages", BODY)[:-1])
            time.sleep(2.5)
            with RawConnection(stack.port) as client:
                client.send(render_request("POST", "/api/usages", BODY))
                check_stored(client.read_answer())
                assert fetch(stack.port, "/livez").status == 200
            refused = [connection for connection in slow if connection.is_answered_within(0.5)]
            assert len(refused) == 2
            for connection in refused:
                check_unavailable(connection.read_answer(), stored="no")

    def test_a_flood_of_slow_requests_holds_no_more_than_the_limit(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        """Few refused connections stay open until their clients hang up."""
        stack = stacks(valkey, settings={"BUSYAPI_MAX_CONNECTIONS": "8"})
        api = stack.apis[0]
        before = count_files(api)
        with ExitStack() as clients:
            for _ in range(MANY):
                clients.enter_context(RawConnection(stack.port)).send(b"GET")
            wait_until(lambda: count_files(api) > before + 8, "the flood to arrive")
            time.sleep(0.2)
            # A connection that is being refused counts until it is closed.
            assert count_files(api) <= before + 8 + MAX_LINGERING + 4
            wait_until(lambda: count_files(api) <= before + 8 + 2, "all others to be closed")
            with RawConnection(stack.port) as client:
                client.send(render_request("POST", "/api/usages", BODY))
                check_stored(client.read_answer())

    def test_connections_beyond_all_refusals_are_cut_off_without_an_error(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        stack = stacks(valkey, settings={"BUSYAPI_MAX_CONNECTIONS": "8"})
        api = stack.apis[0]
        valkey.pause()
        with ExitStack() as clients:
            for _ in range(8):
                busy = clients.enter_context(RawConnection(stack.port))
                busy.send(render_request("POST", "/api/usages", BODY))
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 8, "all to be pending")
            refused = [
                clients.enter_context(RawConnection(stack.port)) for _ in range(MAX_REFUSALS + 20)
            ]
            wait_until(lambda: any(client.is_closed() for client in refused), "one to be cut off")
            valkey.resume()
        assert b"library_log" not in api.log.read_bytes()
