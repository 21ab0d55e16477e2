"""Every port: its deadline, its errors, how many connections it has, and what one too many gets."""

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
from tests.service.conftest import Apis

DEADLINE = 1.0
LATE = 10 * DEADLINE
MANY = 400
"""More than a port of metrics keeps."""


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose deadline is short."""
    folder = tmp_path_factory.mktemp("ports")
    with (
        Server(folder / "valkey") as server,
        Stack(
            folder / "stack", server, settings={"BUSYAPI_REQUEST_DEADLINE": str(DEADLINE)}
        ) as stack,
    ):
        yield stack


@pytest.fixture
def beside_hasty(hasty: Stack, tmp_path: Path) -> Iterator[Apis]:
    """A maker of API processes beside that stack."""
    with ExitStack() as running:

        def make(**settings: str) -> Api:
            api = Api(
                tmp_path, "api-beside", reserve_port(), {**(hasty.apis[0].environment), **settings}
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
def port(request: pytest.FixtureRequest, hasty: Stack) -> int:
    """Each of the three ports in turn."""
    return PORTS[request.param](hasty)


def threads(process: Process) -> int:
    """Return how many threads a process has."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("Threads:")[1].split()[0])


def files(process: Process) -> int:
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

    def test_a_client_that_is_gone_before_its_answer_is_no_error(
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
    """A request arrives whole within the deadline, or is answered 408."""

    @pytest.mark.parametrize(
        "begun",
        [
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ",
            b"GET /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
        ],
        ids=["header", "body"],
    )
    def test_a_byte_now_and_then_is_no_way_round_it(self, port: int, begun: bytes) -> None:
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
    """The metrics port of an API process is served by its event loop."""

    def test_silent_connections_cost_no_thread_and_do_not_lock_a_scrape_out(
        self, hasty: Stack
    ) -> None:
        api = hasty.apis[0]
        before = threads(api)
        with ExitStack() as clients:
            silent = [clients.enter_context(RawConnection(api.scrape_port)) for _ in range(MANY)]
            for each in silent[::2]:
                each.send(b"GET")
            assert api.read_metric("busyapi_build_info") == 1
            assert threads(api) == before
            # The newest keep their places until the deadline, the others made room.
            assert not silent[0].is_answered_within(0.5)
            begun = silent[::2]
            wait_until(lambda: all(each.is_closed() for each in begun), "the begun to be closed")
        assert hasty.apis[0].log.read_bytes().count(b"Traceback") == 0

    def test_a_slow_scrape_is_answered_although_connections_come_and_come(
        self, hasty: Stack
    ) -> None:
        api = hasty.apis[0]
        whole = render_request("GET", "/metrics")
        with ExitStack() as clients, RawConnection(api.scrape_port) as slow:
            slow.send(whole[:9])
            for _ in range(MANY // 4):
                clients.enter_context(RawConnection(api.scrape_port)).send(b"GET")
            time.sleep(DEADLINE / 4)
            slow.send(whole[9:])
            assert slow.read_answer().status == 200

    def test_scrapes_without_end_leave_the_loop_to_others(self, hasty: Stack) -> None:
        """Renderings are shared: four hundred requests are not four hundred renderings."""
        api = hasty.apis[0]
        clients = [RawConnection(api.scrape_port) for _ in range(100)]
        for each in clients:
            each.send(render_request("GET", "/metrics") * 4)
        started = time.monotonic()
        assert fetch(hasty.port, "/livez").status == 200
        waited = time.monotonic() - started
        bodies = {each.read_answer().body for each in clients}
        assert len(bodies) < 50
        assert waited < LATE
        for each in clients:
            each.close()

    def test_ipv6(self, port: int) -> None:
        if not Path("/proc/net/if_inet6").exists():
            pytest.skip("a machine without IPv6")
        for host in ("::1", "127.0.0.1"):
            with socket.create_connection((host, port), 5) as client:
                client.sendall(render_request("GET", "/livez"))
                assert client.recv(20).startswith(b"HTTP/1.1 ")

    def test_a_taken_port_ends_the_process(self, hasty: Stack, beside_hasty: Apis) -> None:
        taken = str(hasty.apis[0].scrape_port)
        with pytest.raises(RuntimeError, match=f"port {taken}"):
            beside_hasty(BUSYAPI_METRICS_PORT=taken)


class TestBound:
    """At the bound a quiet connection makes room; while all are at work a new one is refused."""

    def test_one_too_many_is_refused_clearly_and_probes_are_answered(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        stack = stacks(valkey, settings={"BUSYAPI_MAX_CONNECTIONS": "8"})
        api = stack.apis[0]
        valkey.pause()
        with ExitStack() as clients:
            busy = [clients.enter_context(RawConnection(stack.port)) for _ in range(8)]
            for each in busy:
                each.send(render_request("POST", "/api/usages", BODY))
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 8, "all to be at work")
            for _ in range(3):
                # More than fits in one packet: closing at once would reset the connection.
                with RawConnection(stack.port) as client:
                    client.send(render_request("POST", "/api/usages", BODY + b" " * 200_000))
                    answer = client.read_answer()
                    assert answer.headers["connection"] == "close"
                    check_unavailable(answer, stored="no")
                    assert client.is_closed_within(5)
            assert fetch(stack.port, "/livez").body == b"loop: ok\n"
            assert fetch(stack.port, "/readyz").status == 200
            valkey.resume()
            for each in busy:
                check_stored(each.read_answer())
            # All are idle now: the next is served, and the one that was idle longest is closed.
            time.sleep(1.2)
            with RawConnection(stack.port) as client:
                client.send(render_request("POST", "/api/usages", BODY))
                check_stored(client.read_answer())
            assert sum(each.is_closed() for each in busy) == 1

    def test_slow_requests_make_room(self, stacks: Stacks, valkey: Server) -> None:
        settings = {"BUSYAPI_MAX_CONNECTIONS": "8", "BUSYAPI_REQUEST_DEADLINE": "8"}
        stack = stacks(valkey, settings=settings)
        with ExitStack() as clients:
            slow = [clients.enter_context(RawConnection(stack.port)) for _ in range(8)]
            for each in slow:
                each.send(render_request("POST", "/api/usages", BODY)[:-1])
            time.sleep(2.5)
            with RawConnection(stack.port) as client:
                client.send(render_request("POST", "/api/usages", BODY))
                check_stored(client.read_answer())
                assert fetch(stack.port, "/livez").status == 200
            told = [each for each in slow if each.is_answered_within(0.5)]
            assert len(told) == 2
            for each in told:
                check_unavailable(each.read_answer(), stored="no")

    def test_a_flood_of_slow_requests_holds_no_more_than_the_bound(
        self, stacks: Stacks, valkey: Server
    ) -> None:
        """Those that made room, and do not hang up, are few."""
        stack = stacks(valkey, settings={"BUSYAPI_MAX_CONNECTIONS": "8"})
        api = stack.apis[0]
        before = files(api)
        with ExitStack() as clients:
            for _ in range(MANY):
                clients.enter_context(RawConnection(stack.port)).send(b"GET")
            wait_until(lambda: files(api) > before + 8, "the flood to be seen")
            time.sleep(0.2)
            assert files(api) <= before + 8 + MAX_LINGERING
            wait_until(lambda: files(api) <= before + 8 + 2, "all others to be closed")
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
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 8, "all to be at work")
            refused = [
                clients.enter_context(RawConnection(stack.port)) for _ in range(MAX_REFUSALS + 20)
            ]
            wait_until(lambda: any(each.is_closed() for each in refused), "one to be cut off")
            valkey.resume()
        assert b"library_log" not in api.log.read_bytes()
