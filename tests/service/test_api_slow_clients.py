"""Clients that send slowly, stay silent, do not read or hang up: none of them affects another."""

import math
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest

from testkit.api_client import (
    BODY,
    RawConnection,
    check_problem,
    check_stored,
    fetch_count,
    render_request,
    send,
)
from testkit.http1 import Answer
from testkit.load import Load
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

DEADLINE = 1.0
EARLY, LATE = 0.9 * DEADLINE, 8 * DEADLINE
"""Earliest and latest end in seconds. A busy machine is late, never early."""

IDLE = 1000


@pytest.fixture(scope="module")
def impatient_api(start_api: StartApi) -> Api:
    """An API process with a short deadline."""
    return start_api(BUSYAPI_REQUEST_DEADLINE=str(DEADLINE))


HEAD = render_request("POST", "/api/usages", headers=("Content-Length: 1000",))
CHUNKED = render_request("POST", "/api/usages", headers=("Transfer-Encoding: chunked",))


SLOW = {
    "header byte by byte": (b"", HEAD + b"x" * 1000),
    "header begun": (b"P", b""),
    "header not ended": (HEAD[:-2], b""),
    "header without end": (HEAD[:-2] + b"X: ", b"x" * 1000),
    "body byte by byte": (HEAD, BODY + b" " * 1000),
    "body cut short": (HEAD + BODY, b""),
    "body not begun": (HEAD, b""),
    "chunk header without end": (CHUNKED + b"f;", b"f" * 1000),
    "chunk byte by byte": (CHUNKED + b"100\r\n", b" " * 1000),
    "chunks without end": (CHUNKED + b"1\r\n{\r\n", b"1\r\n \r\n" * 200),
}
"""Bytes sent at once, and bytes sent one by one."""


class CutOff(NamedTuple):
    """How the server ended a slow client's request."""

    answer: Answer
    seconds: float
    sent: int
    ended: bool


def send_slowly(api: Api, case: str) -> CutOff:
    """Send slowly until the server ends the request."""
    at_once, drip = SLOW[case]
    with RawConnection(api.port) as device:
        started = time.monotonic()
        device.send(at_once)
        sent = device.drip(drip, 0.05)
        if sent == len(drip):
            device.wait_for_data(LATE)
        seconds = time.monotonic() - started
        return CutOff(device.read_answer(), seconds, sent, device.is_closed_within(LATE))


@pytest.fixture(scope="module")
def cut_off(impatient_api: Api) -> dict[str, Future[CutOff]]:
    """Every case, all at the same time."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        return {case: pool.submit(send_slowly, impatient_api, case) for case in SLOW}


@pytest.mark.parametrize("case", SLOW)
def test_a_request_that_does_not_arrive_in_time_is_408(
    cut_off: dict[str, Future[CutOff]], case: str
) -> None:
    result = cut_off[case].result()
    check_problem(result.answer, 408)
    assert result.answer.headers["connection"] == "close"
    assert EARLY < result.seconds < LATE
    assert result.ended
    assert result.sent < 500, "it could send to the end"


def test_header_and_body_share_one_deadline(impatient_api: Api) -> None:
    def seconds() -> float:
        with RawConnection(impatient_api.port) as device:
            started = time.monotonic()
            device.drip(HEAD[:14], DEADLINE / 20)
            if time.monotonic() - started > 0.9 * DEADLINE:
                return math.inf  # on a busy machine: the header alone took a deadline
            device.send(HEAD[14:])
            device.drip(b" " * 990, DEADLINE / 20)
            check_problem(device.read_answer(), 408)
            return time.monotonic() - started

    # Two deadlines, one after the other, would take at least 1.7 deadlines each time.
    wait_until(lambda: DEADLINE <= seconds() < 1.7 * DEADLINE, "a 408 in time", seconds=60)


def test_each_request_of_a_connection_has_a_deadline_of_its_own(start_api: StartApi) -> None:
    deadline = 3 * DEADLINE
    api = start_api(BUSYAPI_REQUEST_DEADLINE=str(deadline))
    with RawConnection(api.port) as device:
        started = time.monotonic()
        while time.monotonic() - started < 1.5 * deadline:
            device.send(render_request("POST", "/api/usages", BODY)[:-1])
            time.sleep(deadline / 4)
            device.send(BODY[-1:])
            check_stored(device.read_answer())


def test_a_body_that_no_handler_reads_is_awaited_until_the_deadline_only(
    impatient_api: Api,
) -> None:
    """After a 404 the rest is read to keep the connection, but only until the deadline."""
    with RawConnection(impatient_api.port) as device:
        device.send(HEAD.replace(b"/api/usages", b"/nowhere"))
        check_problem(device.read_answer(), 404)
        assert device.drip(b" " * 1000, 0.05) < 500
        assert device.is_closed_within(LATE)


def test_a_client_that_does_not_read_its_answers_is_disconnected(impatient_api: Api) -> None:
    requests = render_request("GET", "/openapi.json") * 100
    with RawConnection(impatient_api.port, seconds=0.2) as device:
        # Send until neither side can write, then wait until the server disconnects.
        def is_disconnected() -> bool:
            try:
                device.send(requests)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        wait_until(is_disconnected, "the connection to be reset", seconds=LATE * 2)


class TestOthers:
    """Slow and idle clients do not affect normal traffic."""

    def test_a_hundred_slow_clients_delay_no_other_client(self, impatient_api: Api) -> None:
        slow = [RawConnection(impatient_api.port) for _ in range(100)]
        for number, client in enumerate(slow):
            client.send(HEAD if number % 2 else HEAD[:40])
        stopping = threading.Event()

        def drip() -> None:
            while not stopping.wait(0.1):
                for client in slow:
                    client.drip(b" ", 0)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with Load(
                impatient_api.port, connections=8, seconds=2 * DEADLINE, timeout=LATE
            ) as load:
                history = load.finish()
        finally:
            stopping.set()
            dripping.join()
        assert history.acknowledged == len(history.requests) > 0, history
        for client in slow:
            check_problem(client.read_answer(), 408)
            client.close()

    def test_a_thousand_idle_connections_are_kept_and_delay_no_other_client(
        self, impatient_api: Api
    ) -> None:
        idle = [RawConnection(impatient_api.port) for _ in range(IDLE)]
        for client in idle[::2]:
            client.send(render_request("GET", "/livez"))
        for client in idle[::2]:
            assert client.read_answer().status == 200
        time.sleep(2 * DEADLINE)
        check_stored(send(impatient_api.port, BODY))
        for client in idle:
            client.send(render_request("POST", "/api/usages", BODY))
        ids = {check_stored(client.read_answer()) for client in idle}
        assert len(ids) == IDLE
        for client in idle:
            client.close()


@pytest.fixture(autouse=True)
def _raise_file_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 4 * IDLE
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(limit, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def hang_up_during_commit(stack: Stack, store: Server, clients: int) -> None:
    """Send usages while Redis is paused, and hang up before it answers."""
    api = stack.apis[0]
    pending = "busyapi_pending_usages"
    store.pause()
    try:
        devices = [RawConnection(stack.port) for _ in range(clients)]
        for device in devices:
            device.send(render_request("POST", "/api/usages", BODY))
        wait_until(lambda: api.read_metric(pending) == clients, "the usages to be pending")
        for device in devices:
            device.reset()
        wait_until(
            lambda: api.read_metric("busyapi_requests_total", status="499") == clients,
            "the hang-ups to be counted",
        )
    finally:
        store.resume()
    wait_until(lambda: api.read_metric(pending) == 0, "nothing to be pending")


def test_the_usage_of_a_client_that_hangs_up_is_stored_once(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey)
    log = stack.apis[0].log.read_bytes()
    hang_up_during_commit(stack, valkey, clients=20)
    assert fetch_count(stack.port) == 20
    # The next clients get their own answers.
    assert [check_stored(send(stack.port, BODY)) for _ in range(3)] == [21, 22, 23]
    stack.wait_until_archived()
    assert stack.apis[0].log.read_bytes() == log, "a line was logged for a client that hung up"
