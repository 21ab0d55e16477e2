"""Clients that are slow, silent, deaf or gone: each costs itself, and no other."""

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
from tests.service.conftest import Apis

DEADLINE = 1.0
EARLY, LATE = 0.9 * DEADLINE, 8 * DEADLINE
"""No earlier, and at last: a machine that is busy is late, never early."""

IDLE = 1000


@pytest.fixture(scope="module")
def hasty(beside: Apis) -> Api:
    """An API process with a short deadline."""
    return beside(BUSYAPI_REQUEST_DEADLINE=str(DEADLINE))


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
"""What is sent at once, and what byte by byte."""


class CutOff(NamedTuple):
    """How a slow client fared."""

    answer: Answer
    seconds: float
    sent: int
    ended: bool


def slowly(api: Api, case: str) -> CutOff:
    """Send slowly until the server has had enough."""
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
def cut_off(hasty: Api) -> dict[str, Future[CutOff]]:
    """Every case, all at the same time."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        return {case: pool.submit(slowly, hasty, case) for case in SLOW}


@pytest.mark.parametrize("case", SLOW)
def test_a_request_that_does_not_arrive_in_time_is_408(
    cut_off: dict[str, Future[CutOff]], case: str
) -> None:
    fared = cut_off[case].result()
    check_problem(fared.answer, 408)
    assert fared.answer.headers["connection"] == "close"
    assert EARLY < fared.seconds < LATE
    assert fared.ended
    assert fared.sent < 500, "it was let send all the same"


def test_header_and_body_share_one_deadline(hasty: Api) -> None:
    def seconds() -> float:
        with RawConnection(hasty.port) as device:
            started = time.monotonic()
            device.drip(HEAD[:14], DEADLINE / 20)
            if time.monotonic() - started > 0.9 * DEADLINE:
                return math.inf  # so late it was the header's own deadline, on a busy machine
            device.send(HEAD[14:])
            device.drip(b" " * 990, DEADLINE / 20)
            check_problem(device.read_answer(), 408)
            return time.monotonic() - started

    # Two deadlines, one after the other, would be 1.7 of one at the least, each time.
    wait_until(lambda: DEADLINE <= seconds() < 1.7 * DEADLINE, "a 408 in time", seconds=60)


def test_each_request_of_a_connection_has_a_deadline_of_its_own(beside: Apis) -> None:
    deadline = 3 * DEADLINE
    api = beside(BUSYAPI_REQUEST_DEADLINE=str(deadline))
    with RawConnection(api.port) as device:
        started = time.monotonic()
        while time.monotonic() - started < 1.5 * deadline:
            device.send(render_request("POST", "/api/usages", BODY)[:-1])
            time.sleep(deadline / 4)
            device.send(BODY[-1:])
            check_stored(device.read_answer())


def test_a_body_that_nobody_reads_is_not_waited_for(hasty: Api) -> None:
    """After a 404 its rest is read, so that the connection can be kept; but not for ever."""
    with RawConnection(hasty.port) as device:
        device.send(HEAD.replace(b"/api/usages", b"/nowhere"))
        check_problem(device.read_answer(), 404)
        assert device.drip(b" " * 1000, 0.05) < 500
        assert device.is_closed_within(LATE)


def test_a_client_that_does_not_read_its_answers_is_hung_up_on(hasty: Api) -> None:
    asking = render_request("GET", "/openapi.json") * 100
    with RawConnection(hasty.port, seconds=0.2) as device:
        # Until neither side can write any more, then until the server has had enough.
        def gone() -> bool:
            try:
                device.send(asking)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        wait_until(gone, "the connection to be reset", seconds=LATE * 2)


class TestOthers:
    """What normal traffic notices of all this: nothing."""

    def test_a_hundred_slow_clients_delay_nobody(self, hasty: Api) -> None:
        slow = [RawConnection(hasty.port) for _ in range(100)]
        for number, each in enumerate(slow):
            each.send(HEAD if number % 2 else HEAD[:40])
        stopping = threading.Event()

        def drip() -> None:
            while not stopping.wait(0.1):
                for each in slow:
                    each.drip(b" ", 0)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with Load(hasty.port, connections=8, seconds=2 * DEADLINE, timeout=LATE) as load:
                history = load.finish()
        finally:
            stopping.set()
            dripping.join()
        assert history.acknowledged == len(history.requests) > 0, history
        for each in slow:
            check_problem(each.read_answer(), 408)
            each.close()

    def test_a_thousand_idle_connections_are_kept_and_hinder_nobody(self, hasty: Api) -> None:
        idle = [RawConnection(hasty.port) for _ in range(IDLE)]
        for each in idle[::2]:
            each.send(render_request("GET", "/livez"))
        for each in idle[::2]:
            assert each.read_answer().status == 200
        time.sleep(2 * DEADLINE)
        check_stored(send(hasty.port, BODY))
        for each in idle:
            each.send(render_request("POST", "/api/usages", BODY))
        ids = {check_stored(each.read_answer()) for each in idle}
        assert len(ids) == IDLE
        for each in idle:
            each.close()


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def hang_up_with_a_commit_under_way(stack: Stack, store: Server, clients: int) -> None:
    """Send usages while Redis stands still, and hang up before it answers."""
    api = stack.apis[0]
    pending = "busyapi_pending_usages"
    store.pause()
    try:
        devices = [RawConnection(stack.port) for _ in range(clients)]
        for each in devices:
            each.send(render_request("POST", "/api/usages", BODY))
        wait_until(lambda: api.read_metric(pending) == clients, "the usages to be pending")
        for each in devices:
            each.reset()
        wait_until(
            lambda: api.read_metric("busyapi_requests_total", status="499") == clients,
            "the hang-ups to be seen",
        )
    finally:
        store.resume()
    wait_until(lambda: api.read_metric(pending) == 0, "nothing to be pending")


def test_the_usage_of_a_client_that_hangs_up_is_stored_once(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey)
    logged = stack.apis[0].log.read_bytes()
    hang_up_with_a_commit_under_way(stack, valkey, clients=20)
    assert fetch_count(stack.port) == 20
    # The next answers are each one's own.
    assert [check_stored(send(stack.port, BODY)) for _ in range(3)] == [21, 22, 23]
    stack.wait_until_archived()
    assert stack.apis[0].log.read_bytes() == logged, "no line for each client that hangs up"
