"""Requests refused by their header alone, and the memory limit of arriving requests."""

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from busyapi.settings import SWITCH
from perf.procfs import resident_bytes
from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    check_unavailable,
    fetch_count,
    render_request,
    send,
)
from testkit.http1 import fetch
from testkit.processes import Api, Process, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

MIB = 1 << 20
MAX_RESIDENT = 400 * MIB
BATCH = "/api/usages/batch"
ATTACKERS = 200


@contextmanager
def peak_of(process: Process) -> Iterator[Callable[[], int]]:
    """Watch a process's resident bytes; yield a function that returns the peak so far."""
    peak, stopping = [resident_bytes(process.pid)], threading.Event()

    def watch() -> None:
        while not stopping.wait(0.02):
            peak[0] = max(peak[0], resident_bytes(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stopping.set()
        thread.join()


@pytest.fixture(scope="module")
def guarded(start_api: StartApi, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """An API process with tokens and a rate limit that one request uses up."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("write writer\nread reader\nwrite spent\n")
    api = start_api(BUSYAPI_TOKENS_FILE=str(path), BUSYAPI_RATE_LIMIT="0.001")
    assert send(api.port, USAGE, authorization="Bearer spent").status == 201
    return api


LENGTH = "Content-Length: 60000"
REFUSED = {
    "no token": ("POST", "/api/usages", 401, (LENGTH,)),
    "no token, batch": ("POST", BATCH, 401, (LENGTH,)),
    "no right": ("POST", "/api/usages", 403, (LENGTH, "Authorization: Bearer reader")),
    "no path": ("POST", "/nowhere", 404, (LENGTH,)),
    "no method": ("PUT", "/api/usages", 405, (LENGTH,)),
    "rate": ("POST", BATCH, 429, (LENGTH, "Authorization: Bearer spent")),
    "no token, chunked": ("POST", "/api/usages", 401, ("Transfer-Encoding: chunked",)),
}
OPEN_REFUSED = {
    "too large": ("/api/usages", 413, ("Content-Length: 65537",)),
    "much too large": ("/api/usages", 413, ("Content-Length: 4194304",)),
    "too large a batch": (BATCH, 413, ("Content-Length: 4194305",)),
    "coding": ("/api/usages", 415, (LENGTH, "Content-Encoding: br")),
    "coding of a batch": (BATCH, 415, (LENGTH, "Content-Encoding: gzip, gzip")),
}
EXPECT = ((), ("Expect: 100-continue",))


class TestHeaderAlone:
    """An answer that depends on the header alone does not wait for the body or ask for it."""

    @pytest.mark.parametrize("expect", EXPECT, ids=["plain", "expect"])
    @pytest.mark.parametrize("case", REFUSED)
    def test_refused_before_the_body(
        self, guarded: Api, case: str, expect: tuple[str, ...]
    ) -> None:
        method, path, status, headers = REFUSED[case]
        with RawConnection(guarded.port) as client:
            client.send(render_request(method, path, headers=(*headers, *expect)))
            check_problem(client.read_answer(), status)

    @pytest.mark.parametrize("expect", EXPECT, ids=["plain", "expect"])
    @pytest.mark.parametrize("case", OPEN_REFUSED)
    def test_refused_before_the_body_without_tokens(
        self, contract: Stack, case: str, expect: tuple[str, ...]
    ) -> None:
        path, status, headers = OPEN_REFUSED[case]
        with RawConnection(contract.port) as client:
            client.send(render_request("POST", path, headers=(*headers, *expect)))
            check_problem(client.read_answer(), status)

    def test_a_chunk_that_announces_too_much_is_413_before_it_comes(self, contract: Stack) -> None:
        with RawConnection(contract.port) as client:
            client.send(
                render_request("POST", "/api/usages", headers=("Transfer-Encoding: chunked",))
            )
            client.send(b"10001\r\n")
            check_problem(client.read_answer(), 413)

    @pytest.mark.parametrize("pause", [0.0, 0.05])
    @pytest.mark.parametrize(("start", "status"), [(b"10001\r\n", 413), (b"1\r\n<", 415)])
    def test_the_first_of_two_errors_is_reported_in_one_packet_or_two(
        self, contract: Stack, start: bytes, status: int, pause: float
    ) -> None:
        headers = ("Transfer-Encoding: chunked", "Content-Type: text/plain")
        head = render_request("POST", "/api/usages", headers=headers)
        with RawConnection(contract.port) as client:
            if pause:
                client.send(head + start)
                time.sleep(pause)
                client.send(b"x" * 0x10001 + b"malformed\r\n")
            else:
                client.send(head + start + b"x" * 0x10001 + b"malformed\r\n")
            check_problem(client.read_answer(), status)

    def test_a_type_and_a_first_byte_that_cannot_be_a_usage_are_415(self, contract: Stack) -> None:
        for path in ("/api/usages", BATCH):
            with RawConnection(contract.port) as client:
                client.send(
                    render_request("POST", path, headers=(LENGTH, "Content-Type: text/plain"))
                )
                client.send(b"<")
                check_problem(client.read_answer(), 415)

    def test_the_body_of_a_refused_request_is_skipped_and_the_connection_kept(
        self, guarded: Api
    ) -> None:
        with RawConnection(guarded.port) as client:
            for _ in range(3):
                client.send(render_request("POST", "/api/usages", b" " * 60_000))
                answer = client.read_answer()
                check_problem(answer, 401)
                assert answer.headers["connection"] == "keep-alive"

    def test_a_refused_body_beyond_the_bound_closes_the_connection(self, guarded: Api) -> None:
        with RawConnection(guarded.port) as client:
            client.send(
                render_request("POST", "/api/usages", headers=("Content-Length: 99000000",))
            )
            answer = client.read_answer()
            check_problem(answer, 401)
            assert answer.headers["connection"] == "close"


BEGUN = {
    "length": (("Content-Length: 4194304",), b""),
    "chunked": (("Transfer-Encoding: chunked",), b"3fffff\r\n"),
    "gzip": (("Content-Length: 4194304", "Content-Encoding: gzip"), gzip.compress(b"[")[:10]),
}


class TestArrivingBodies:
    """Two hundred bodies of 4 MiB are more than a process may hold."""

    @pytest.mark.faults
    @pytest.mark.parametrize("kind", BEGUN)
    def test_memory_is_bounded_and_freed_and_a_complete_batch_is_stored(
        self, contract: Stack, start_api: StartApi, kind: str
    ) -> None:
        api = start_api(BUSYAPI_REQUEST_DEADLINE="60")
        headers, start = BEGUN[kind]
        part = b" " * 131_072 if kind != "gzip" else os.urandom(131_072)
        before = resident_bytes(api.pid)
        with ExitStack() as clients, peak_of(api) as peak, check_nothing_stored(contract.port):
            slow = [clients.enter_context(RawConnection(api.port)) for _ in range(ATTACKERS)]
            for client in slow:
                with suppress(ConnectionError):
                    client.send(render_request("POST", BATCH, headers=headers) + start)
                    for _ in range(31):
                        client.send(part)
            assert fetch(api.port, "/livez").status == 200
            assert peak() < before + 200 * MIB < MAX_RESIDENT
            assert api.read_metric("busyapi_receiving_bytes") <= 64 * MIB
            refused = [client for client in slow if client.is_answered_within(0)]
            assert len(refused) > ATTACKERS - 20
            for client in refused[:5]:
                check_unavailable(client.read_answer(), stored="no")
        with ExitStack() as clients:
            for client in slow[-16:]:
                client.close()
            # The process still serves batches while others hold as much as is allowed.
            held = [clients.enter_context(RawConnection(api.port)) for _ in range(20)]
            for client in held:
                with suppress(ConnectionError):
                    client.send(render_request("POST", BATCH, headers=headers) + start + part * 31)
            usages = b"[" + b",".join([BODY] * 9_000) + b"]"
            assert len(send(api.port, usages, BATCH).json()["ids"]) == 9_000
            check_stored(send(api.port, USAGE))
        wait_until(
            lambda: api.read_metric("busyapi_receiving_bytes") == 0, "the bodies to be released"
        )
        wait_until(lambda: resident_bytes(api.pid) < before + 110 * MIB, "the memory to be freed")

    def test_single_bytes_of_a_body_cost_no_more_than_large_parts(
        self, start_api: StartApi
    ) -> None:
        """A list of parts would need fifty bytes for each part."""
        api = start_api()
        before = resident_bytes(api.pid)
        with RawConnection(api.port) as client:
            client.send(render_request("POST", BATCH, headers=("Transfer-Encoding: chunked",)))
            for _ in range(60):
                client.send(b"1\r\n \r\n" * 5_000)
            assert fetch(api.port, "/livez").status == 200
            assert resident_bytes(api.pid) < before + 12 * MIB


@pytest.mark.parametrize("switch", SWITCH)
def test_requests_that_arrive_at_once_are_all_answered(
    contract: Stack, start_api: StartApi, switch: str
) -> None:
    """This includes requests that arrived complete before a task read them."""
    api = start_api(
        BUSYAPI_MAX_BATCH_BYTES="65536", BUSYAPI_RECEIVING_BYTES="131072", BUSYAPI_FAST_PATH=switch
    )
    large = BODY[:-1] + b',"more":"%b"}' % (b"x" * 60_000)
    before = fetch_count(contract.port)
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port)) for _ in range(12)]
        for device in devices:
            device.send(render_request("GET", "/livez"))
            assert device.read_answer().status == 200
        api.pause()
        for device in devices:
            device.send(render_request("POST", "/api/usages", large))
        api.resume()
        answers = [device.read_answer() for device in devices]
    refused = [answer for answer in answers if answer.status != 201]
    assert refused, "they did not exceed the budget"
    for answer in refused:
        check_unavailable(answer, stored="no")
    assert fetch_count(contract.port) == before + len(answers) - len(refused)
    assert api.read_metric("busyapi_requests_total", status="500") == 0
    wait_until(lambda: api.read_metric("busyapi_receiving_bytes") == 0, "all bytes to be released")


def test_everything_at_its_limit_stays_below_400_mib(stacks: Stacks, valkey: Server) -> None:
    """Cover pending usages, arriving bodies, connections, and the headers of each."""
    stack = stacks(valkey, settings={"BUSYAPI_REQUEST_DEADLINE": "60"})
    api, pending = stack.apis[0], "busyapi_pending_usages"
    # The largest accepted header, with many lines.
    lines = tuple(f"X-{number}: {'x' * 90}" for number in range(75))
    # The maximum number of pending usages and bytes: 4 MB a batch, each usage of 640 bytes.
    large = BODY[:-1] + b',"note":"%b"}' % (b"x" * (640 - len(BODY)))
    usages = b"[" + b",".join([large] * 6_200) + b"]"
    with ExitStack() as clients, peak_of(api) as peak:
        valkey.pause()
        for number in range(1, 17):
            batch = clients.enter_context(RawConnection(stack.port))
            batch.send(render_request("POST", BATCH, usages, headers=lines))
            wait_until(lambda: api.read_metric(pending) == 6_200 * number, "it to wait", seconds=30)  # noqa: B023
        check_unavailable(send(stack.port, usages, BATCH), stored="no")
        for _ in range(300):
            single = clients.enter_context(RawConnection(stack.port))
            single.send(render_request("POST", "/api/usages", BODY, headers=lines))
        slow = [clients.enter_context(RawConnection(stack.port)) for _ in range(40)]
        for client in slow:
            with suppress(ConnectionError):
                client.send(
                    render_request("POST", BATCH, headers=(*lines, "Content-Length: 4194304"))
                )
                client.send(b" " * 4_100_000)
        unfinished = render_request("POST", "/api/usages", headers=lines)[:-2]
        for _ in range(1500):
            clients.enter_context(RawConnection(stack.port)).send(unfinished)
        assert fetch(stack.port, "/livez").status == 200
        assert api.read_metric(pending) == 16 * 6_200 + 300
        assert api.read_metric("busyapi_receiving_bytes") > 32 * MIB
        assert api.read_metric("busyapi_connections") > 1800
        time.sleep(1)
        assert peak() <= MAX_RESIDENT
        valkey.resume()
