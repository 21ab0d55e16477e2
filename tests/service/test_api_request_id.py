"""X-Request-ID: accepted or generated, on every answer, with and without the fast path."""

import re
from itertools import count

import pytest

from testkit.api_client import BODY, USAGE, RawConnection, render_request, send
from testkit.http1 import fetch
from testkit.processes import Stack

GENERATED = re.compile(r"[0-9a-f]{20}")
PATHS = (
    "/",
    "/openapi.json",
    "/livez",
    "/readyz",
    "/api/usages/count",
    "/nowhere",
    "/api/usages/batch",
)
numbers = count()


def request_ids(stack: Stack, headers: dict[str, str]) -> list[str]:
    """Return the request ids of all kinds of answers: of the fast path, of Sanic, of errors."""
    arguments = {name.replace("-", "_"): value for name, value in headers.items()}
    key = f"request-id-{next(numbers)}"
    answers = [
        send(stack.port, BODY, **arguments),
        send(stack.port, USAGE, idempotency_key=key, **arguments),
        send(stack.port, [USAGE], "/api/usages/batch", **arguments),
        send(stack.port, b"{", **arguments),
        send(stack.port, {}, **arguments),
        *(fetch(stack.port, path, headers=headers) for path in PATHS),
    ]
    assert {answer.status for answer in answers} == {200, 201, 400, 404, 405, 422}
    return [answer.headers["x-request-id"] for answer in answers]


def test_a_valid_id_is_returned(contract: Stack) -> None:
    assert set(request_ids(contract, {"X-Request-ID": "7f1c.A:b_c-d"})) == {"7f1c.A:b_c-d"}


@pytest.mark.parametrize(
    "headers", [{}, {"X-Request-ID": "two words"}, {"X-Request-ID": "x" * 129}]
)
def test_other_ids_are_replaced_by_unique_ones(contract: Stack, headers: dict[str, str]) -> None:
    ids = request_ids(contract, headers)
    assert all(GENERATED.fullmatch(request_id) for request_id in ids), ids
    assert len(set(ids)) == len(ids)


def test_each_request_of_a_connection_has_its_own_id(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        for headers in (("X-Request-ID: a1",), (), ("X-Request-ID: a2",)):
            for path in ("/livez", "/api/usages"):
                method = "POST" if path == "/api/usages" else "GET"
                body = BODY if method == "POST" else b""
                device.send(render_request(method, path, body, headers=headers))
                request_id = device.read_answer().headers["x-request-id"]
                assert request_id == headers[0][-2:] if headers else GENERATED.fullmatch(request_id)


def test_the_answer_to_invalid_http_has_an_id(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(b"nothing\r\n\r\n")
        answer = device.read_answer()
    assert answer.status == 400
    assert GENERATED.fullmatch(answer.headers["x-request-id"])
