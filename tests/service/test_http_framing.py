"""Ambiguous framing is refused on every port, and legal framing is accepted."""

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
"""How long to wait for a further answer. A connection that ends does so at once."""


def change_path_for_flusher(raw: bytes) -> bytes:
    """Return the same request with a path of the flusher's port, which accepts no posts."""
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
        assert device.is_closed_within(5), "it answered bytes that it should drop"


@pytest.mark.parametrize("raw", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_a_head_without_following_bytes_is_refused(contract: Stack, raw: bytes) -> None:
    """The fast path handles a single request, and leaves two requests in one packet to Sanic."""
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(raw)
        check_problem(device.read_answer(), 400)


@pytest.mark.parametrize("raw", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_the_flusher_s_port_refuses_the_same_heads(contract: Stack, raw: bytes) -> None:
    with RawConnection(contract.flushers[0].port) as device:
        device.send(change_path_for_flusher(raw) + SMUGGLED)
        assert device.read_answer().status == 400
        assert device.is_closed_within(5)


@pytest.mark.parametrize("raw", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS)
def test_no_port_parses_a_part_of_a_bad_body_as_a_request(contract: Stack, raw: bytes) -> None:
    """Here the server refuses the request by its path, before it reads the body."""
    for port, bad in (
        (contract.flushers[0].port, change_path_for_flusher(raw)),
        (contract.port, raw.replace(b"/api/usages", b"/nowhere", 1)),
    ):
        with RawConnection(port) as device:
            device.send(bad + SMUGGLED)
            assert device.read_answer().status in {400, 404, 405}
            assert device.is_closed_within(5)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_legal_framing_is_accepted_and_the_connection_kept(contract: Stack, raw: bytes) -> None:
    with RawConnection(contract.port) as device:
        device.send(raw + SMUGGLED)
        check_stored(device.read_answer())
        assert device.read_answer().body.startswith(SMUGGLED_ANSWER)
        assert not device.wait_for_data(QUIET_SECONDS)
    with RawConnection(contract.flushers[0].port) as device:
        device.send(change_path_for_flusher(raw) + SMUGGLED)
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
def test_no_request_line_causes_a_server_error(contract: Stack, line: str) -> None:
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
def test_a_line_end_after_a_body_does_not_end_the_connection(contract: Stack, end: bytes) -> None:
    post = render_request("POST", "/api/usages", BODY)
    with RawConnection(contract.port) as device:
        for _ in range(20):
            device.send(post + end)
            check_stored(device.read_answer())
        for _ in range(20):
            device.send(post)
            check_stored(device.read_answer())
            device.send(end)
        device.send((post + end) * 20)
        for _ in range(20):
            check_stored(device.read_answer())
        assert not device.wait_for_data(QUIET_SECONDS), "it answered the line ends"


def test_empty_lines_without_end_are_refused(contract: Stack) -> None:
    for port in (contract.port, contract.flushers[0].port):
        with RawConnection(port) as device:
            device.send(b"\r\n" * 9)
            assert device.read_answer().status == 400
            assert device.is_closed_within(5)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET / HTTP/1.1\nHost: a\n\n"]
)
def test_bytes_that_cannot_become_a_request_are_refused_at_once(
    contract: Stack, sent: bytes
) -> None:
    for port in (contract.port, contract.flushers[0].port):
        with RawConnection(port, seconds=5) as device:
            device.send(sent)
            assert device.read_answer().status == 400
            assert device.is_closed_within(5)
