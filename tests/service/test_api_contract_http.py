"""Errors before a handler: broken HTTP, unknown paths and methods."""

import pytest

from testkit.api_client import (
    BODY,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    render_request,
)
from testkit.http1 import fetch
from testkit.processes import Stack

MARKER = "zQ7-never-shown"


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/usage",
        "/api/usages/abc",
        "/api/usages/1.5",
        "/api/usages/1/more",
        "/api/usages/" + "9" * 5000,
        "//api/usages",
        "/api//usages",
        "/metrics",
        "/../etc/passwd",
        "/%00",
        "/" + "x" * 7000,
    ],
)
def test_an_unknown_path_is_404(contract: Stack, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = fetch(contract.port, f"{path}?{MARKER}", method=method)
        check_problem(answer, 404)
        assert MARKER.encode() not in answer.body


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/usages", "GET, HEAD, POST"),
        ("/api/usages/", "GET, HEAD, POST"),
        ("/api/usages/batch", "POST"),
        ("/api/usages/count", "GET, HEAD"),
        ("/api/usages/1", "GET, HEAD"),
        ("/", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_allowed_ones(
    contract: Stack, path: str, allowed: str
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - {*allowed.split(", ")}:
        with check_nothing_stored(contract.port):
            answer = fetch(contract.port, path, method=method, body=BODY)
        check_problem(answer, 405)
        assert answer.headers["allow"] == allowed


def test_an_unknown_method_is_405(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(render_request("BREW", "/api/usages"))
        check_problem(device.read_answer(), 405)


@pytest.mark.parametrize(
    "broken",
    [
        b"zQ7-never-shown\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1 more\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET http://zQ7-never-shown:port/ HTTP/1.1\r\n\r\n",
        b"GET zQ7-never-shown HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon zQ7-never-shown\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nContent-Length: zQ7-never-shown\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nTransfer-Encoding: zQ7-never-shown\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nContent-Length : 9\r\n\r\nGET /zQ7-never-shown",
        b"POST /api/usages HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n: zQ7-never-shown\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: zQ7-never-shown\r\n\r\n",
        b"POST /api/usages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzQ7-never-shown\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_broken_http_is_400_and_ends_the_connection(contract: Stack, broken: bytes) -> None:
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(broken)
        answer = device.read_answer()
        check_problem(answer, 400)
        assert MARKER.encode() not in answer.body
        assert answer.headers["connection"] == "close"
        assert device.is_closed_within(5)


def test_a_header_beyond_its_limit_is_413(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(render_request("GET", "/livez", headers=("X: " + MARKER * 1000,)))
        check_problem(device.read_answer(), 413)
        assert device.is_closed_within(5)


def test_an_unknown_expectation_is_417(contract: Stack) -> None:
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(render_request("POST", "/api/usages", BODY, headers=(f"Expect: {MARKER}",)))
        answer = device.read_answer()
        check_problem(answer, 417)
        assert MARKER.encode() not in answer.body


def test_a_client_that_expects_100_continue_gets_it(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(render_request("POST", "/api/usages", BODY, headers=("Expect: 100-continue",)))
        assert device.read_answer().status == 100
        check_stored(device.read_answer())


def test_header_bytes_that_are_not_text_change_nothing(contract: Stack) -> None:
    names = ("X: \xff\xfe", "Authorization: Bearer \xff", "Content-Type: \xff", "Accept: \xff")
    for head in (
        render_request("POST", "/api/usages", BODY, headers=names),
        render_request("GET", "/", headers=names),
    ):
        with RawConnection(contract.port) as device:
            device.send(head)
            assert device.read_answer().status in {200, 201}


def test_after_an_error_the_connection_accepts_the_next_request(contract: Stack) -> None:
    """A body that a 404 or 405 did not read is not parsed as the next request."""
    with RawConnection(contract.port) as device:
        for path, body, status in (
            ("/nowhere", BODY, 404),
            ("/livez", BODY, 405),
            ("/api/usages", b"<", 415),
            ("/api/usages", b"{", 400),
            ("/api/usages", b"{}", 422),
        ):
            device.send(render_request("POST", path, body))
            answer = device.read_answer()
            check_problem(answer, status)
            assert answer.headers["connection"] == "keep-alive"
        device.send(render_request("POST", "/api/usages", BODY))
        check_stored(device.read_answer())


def test_pipelined_requests_are_answered_in_order(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(
            render_request("POST", "/api/usages", BODY) * 20 + render_request("GET", "/livez")
        )
        ids = [check_stored(device.read_answer()) for _ in range(20)]
        assert device.read_answer().body == b"loop: ok\n"
    assert ids == sorted(set(ids))


def test_http_1_0_is_answered_and_closed(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(render_request("POST", "/api/usages", BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = device.read_answer()
        check_stored(answer)
        assert answer.headers["connection"] == "close"
        assert device.is_closed_within(5)
