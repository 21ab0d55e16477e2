"""A client that shuts down its sending side after its requests gets its answers, then the end."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from busyapi.settings import SWITCH
from testkit import mutants
from testkit.api_client import (
    BODY,
    RawConnection,
    check_nothing_stored,
    check_stored,
    fetch_count,
    render_request,
)
from testkit.broken_build import broken_build
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.test_api_drain import LOOPS

POST = render_request("POST", "/api/usages", BODY)
CHUNKED = (
    b"POST /api/usages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)
GET = render_request("GET", "/livez")
COMPLETE = {
    "one": ([POST], [201]),
    "one in two packets": ([POST[:50], POST[50:]], [201]),
    "one for Sanic": ([CHUNKED], [201]),
    "three at once": ([POST * 3], [201, 201, 201]),
    "mixed at once": ([POST + CHUNKED + GET + POST], [201, 201, 200, 201]),
    "mixed in packets": ([POST, CHUNKED, POST, GET], [201, 201, 201, 200]),
    "a line end behind": ([POST + b"\r\n"], [201]),
    "an error": ([render_request("POST", "/api/usages", b"{}")], [422]),
    "a read": ([GET], [200]),
}
"""Packets, and the statuses of their answers."""
HALF = {
    "nothing": b"",
    "a line end": b"\r\n",
    "a part of a line": b"POST /api/us",
    "a part of a head": POST[: POST.index(b"\r\n\r\n")],
    "a head": POST[: POST.index(b"\r\n\r\n") + 4],
    "a part of a body": POST[:-1],
    "a part of a chunk": CHUNKED[:-20],
    "a body without its last chunk": CHUNKED[:-5],
    "a body without its last line": CHUNKED[:-2],
}


@pytest.fixture(scope="module", params=[(loop, switch) for loop in LOOPS for switch in SWITCH])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack on each event loop, with the fast path and without."""
    loop, switch = request.param
    folder = tmp_path_factory.mktemp(f"{loop}-{switch}")
    with ExitStack() as running:
        server = running.enter_context(Server(folder / "valkey"))
        settings = {**LOOPS[loop], "BUSYAPI_FAST_PATH": switch}
        yield running.enter_context(Stack(folder / "stack", server, settings=settings))


def collect_statuses(port: int, packets: list[bytes]) -> list[int]:
    """Send packets and end the sending side at once; return the statuses until the end."""
    with RawConnection(port) as device:
        for packet in packets:
            device.send(packet)
        device.finish_sending()
        received = []
        while not device.is_closed_within(5):
            received.append(device.read_answer().status)
        return received


@pytest.mark.parametrize(("packets", "answers"), COMPLETE.values(), ids=COMPLETE)
def test_whole_requests_are_answered_before_the_connection_ends(
    stack: Stack, packets: list[bytes], answers: list[int]
) -> None:
    before = fetch_count(stack.port)
    assert collect_statuses(stack.port, packets) == answers
    assert fetch_count(stack.port) == before + answers.count(201)


@pytest.mark.parametrize("begun", HALF.values(), ids=HALF)
def test_a_part_of_a_request_is_dropped(stack: Stack, begun: bytes) -> None:
    with check_nothing_stored(stack.port):
        assert collect_statuses(stack.port, [begun]) == []
    before = fetch_count(stack.port)
    assert collect_statuses(stack.port, [POST + begun]) == [201]
    assert fetch_count(stack.port) == before + 1


def test_the_flusher_s_port_answers_too(stack: Stack) -> None:
    port = stack.flushers[0].port
    assert collect_statuses(port, [GET]) == [200]
    assert collect_statuses(port, [GET * 2]) == [200, 200]
    assert collect_statuses(port, [GET[:-1]]) == []


def test_a_kept_connection_is_answered_after_a_half_close(stack: Stack) -> None:
    with RawConnection(stack.port) as device:
        device.send(POST)
        check_stored(device.read_answer())
        device.send(POST)
        device.finish_sending()
        answer = device.read_answer()
        check_stored(answer)
        assert device.is_closed_within(5)


@pytest.mark.parametrize("switch", SWITCH)
def test_the_end_may_come_while_a_usage_is_pending(
    valkey: Server, stacks: Stacks, switch: str
) -> None:
    """It may come long before the answer: the connection does not count as idle."""
    stack = stacks(valkey, settings={"BUSYAPI_FAST_PATH": switch})
    pending = "busyapi_pending_usages"
    valkey.pause()
    with RawConnection(stack.port) as device:
        device.send(POST)
        wait_until(lambda: stack.apis[0].read_metric(pending) == 1, "the usage to be read")
        device.finish_sending()
        device.wait_for_data(0.3)
        valkey.resume()
        check_stored(device.read_answer())
        assert device.is_closed_within(5)
    assert stack.apis[0].read_metric("busyapi_requests_total", status="499") == 0


@pytest.mark.mutants
def test_a_server_that_closes_at_the_end_of_the_requests_is_caught(
    valkey: Server, stacks: Stacks
) -> None:
    broken = broken_build(mutants.close_at_half_close)
    stack = stacks(valkey, settings={**broken, "BUSYAPI_FAST_PATH": "off"})
    assert collect_statuses(stack.port, [POST]) == []
    assert fetch_count(stack.port) == 1, "stored but not answered"
