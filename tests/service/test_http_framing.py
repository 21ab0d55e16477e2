"""Framing that a proxy may read otherwise is refused, on every port; what is legal is taken."""

import pytest

from testkit.api_client import (
    BODY,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    render_request,
)
from testkit.framing_cases import ACCEPTED, REFUSED_CHUNKS, REFUSED_HEADS, SMUGGLED, SMUGGLED_ANSWER
from testkit.processes import Stack

QUIET_SECONDS = 0.15
"""Without a further answer. A connection that ends says so at once."""


def for_the_flusher(raw: bytes) -> bytes:
    """Ask its port, which takes no posts, in the same way."""
    return raw.replace(b"/api/usages", b"/livez", 1)


@pytest.mark.parametrize(
    "raw",
    [*REFUSED_HEADS.values(), *REFUSED_CHUNKS.values()],
    ids=[*REFUSED_HEADS, *REFUSED_CHUNKS],
)
def test_ambiguous_framing_is_400_and_ends_the_connection(contract: Stack, raw: bytes) -> None:
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(raw + SMUGGLED)
        answer = device.read_answer()
        check_problem(answer, 400)
        assert answer.headers["connection"] == "close"
        assert device.is_closed_within(5), "answered what it was to drop"


@pytest.mark.parametrize("raw", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_a_head_is_refused_where_nothing_follows(contract: Stack, raw: bytes) -> None:
    """The fast path leaves two requests in one packet to Sanic, and looks at one alone."""
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(raw)
        check_problem(device.read_answer(), 400)


@pytest.mark.parametrize("raw", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_the_flusher_s_port_refuses_the_same_heads(contract: Stack, raw: bytes) -> None:
    with RawConnection(contract.flushers[0].port) as device:
        device.send(for_the_flusher(raw) + SMUGGLED)
        assert device.read_answer().status == 400
        assert device.is_closed_within(5)


@pytest.mark.parametrize("raw", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS)
def test_no_port_takes_a_part_of_a_bad_body_for_a_request(contract: Stack, raw: bytes) -> None:
    """Here the path refuses it, before its body is read."""
    for port, bad in (
        (contract.flushers[0].port, for_the_flusher(raw)),
        (contract.port, raw.replace(b"/api/usages", b"/nowhere", 1)),
    ):
        with RawConnection(port) as device:
            device.send(bad + SMUGGLED)
            assert device.read_answer().status in {400, 404, 405}
            assert device.is_closed_within(5)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_legal_framing_is_taken_and_the_connection_kept(contract: Stack, raw: bytes) -> None:
    with RawConnection(contract.port) as device:
        device.send(raw + SMUGGLED)
        check_stored(device.read_answer())
        assert device.read_answer().body.startswith(SMUGGLED_ANSWER)
        assert not device.wait_for_data(QUIET_SECONDS)
    with RawConnection(contract.flushers[0].port) as device:
        device.send(for_the_flusher(raw) + SMUGGLED)
        assert device.read_answer().status in {404, 405}


@pytest.mark.parametrize(
    "line",
    [
        "GET http://a HTTP/1.1",
        "GET http://a?x HTTP/1.1",
        "GET http://a#x HTTP/1.1",
        "OPTIONS http://a:80 HTTP/1.1",
        "POST a://b HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET //a HTTP/1.1",
        "GET //a:b@c:d HTTP/1.1",
        "GET ///// HTTP/1.1",
        "GET /%ff%00%zz HTTP/1.1",
        'GET /"<>\\^`{|} HTTP/1.1',
        "GET /api/usages/%2d1 HTTP/1.1",
        "GET http://a//b HTTP/1.1",
        "GET /;a=b HTTP/1.1",
        "GET /?http://a HTTP/1.1",
        "GET http://[::1]:80/livez HTTP/1.1",
        "TRACE / HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "GET /livez:80 HTTP/1.1",
    ],
)
def test_no_request_line_is_an_error_of_the_server(contract: Stack, line: str) -> None:
    for port in (contract.port, contract.flushers[0].port):
        with RawConnection(port) as device:
            device.send(f"{line}\r\nHost: a\r\n\r\n".encode())
            answer = device.read_answer()
            assert 200 <= answer.status < 500, answer


def test_an_absolute_target_without_a_path_asks_for_the_root(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(b"GET http://a HTTP/1.1\r\nHost: b\r\nAccept: application/json\r\n\r\n")
        assert device.read_answer().json()["name"] == "busyapi"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_line_end_behind_a_body_does_not_end_the_connection(contract: Stack, end: bytes) -> None:
    whole = render_request("POST", "/api/usages", BODY)
    with RawConnection(contract.port) as device:
        for _ in range(20):
            device.send(whole + end)
            check_stored(device.read_answer())
        for _ in range(20):
            device.send(whole)
            check_stored(device.read_answer())
            device.send(end)
        device.send((whole + end) * 20)
        for _ in range(20):
            check_stored(device.read_answer())
        assert not device.wait_for_data(QUIET_SECONDS), "waits for the next request"


def test_empty_lines_without_end_are_refused(contract: Stack) -> None:
    for port in (contract.port, contract.flushers[0].port):
        with RawConnection(port) as device:
            device.send(b"\r\n" * 9)
            assert device.read_answer().status == 400
            assert device.is_closed_within(5)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET / HTTP/1.1\nHost: a\n\n"]
)
def test_what_never_becomes_a_request_is_not_waited_for(contract: Stack, sent: bytes) -> None:
    for port in (contract.port, contract.flushers[0].port):
        with RawConnection(port, seconds=5) as device:
            device.send(sent)
            assert device.read_answer().status == 400
            assert device.is_closed_within(5)
