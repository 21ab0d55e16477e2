"""X-Request-ID: taken or made, on every answer, by both routes."""

import re
from itertools import count

import pytest

from testkit.api_client import BODY, USAGE, RawConnection, render_request, send
from testkit.http1 import fetch
from testkit.processes import Stack

MADE = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")
PATHS = ("/", "/openapi.json", "/livez", "/readyz", "/api/usages/count", "/nowhere", "/api/usages")
numbers = count()


def asked(stack: Stack, headers: dict[str, str]) -> list[str]:
    """Return the ids of answers of every kind: the fast path's, Sanic's, errors."""
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    key = f"request-id-{next(numbers)}"
    answers = [
        send(stack.port, BODY, **named),
        send(stack.port, USAGE, idempotency_key=key, **named),
        send(stack.port, [USAGE], "/api/usages/batch", **named),
        send(stack.port, b"{", **named),
        send(stack.port, {}, **named),
        *(fetch(stack.port, path, headers=headers) for path in PATHS),
    ]
    assert {each.status for each in answers} == {200, 201, 400, 404, 405, 422}
    return [each.headers["x-request-id"] for each in answers]


def test_a_sane_id_comes_back(contract: Stack) -> None:
    assert set(asked(contract, {"X-Request-ID": "7f1c.A:b_c-d"})) == {"7f1c.A:b_c-d"}


@pytest.mark.parametrize(
    "headers", [{}, {"X-Request-ID": "two words"}, {"X-Request-ID": "x" * 129}]
)
def test_any_other_is_made_and_no_two_are_the_same(
    contract: Stack, headers: dict[str, str]
) -> None:
    ids = asked(contract, headers)
    assert all(MADE.fullmatch(each) for each in ids), ids
    assert len(set(ids)) == len(ids)


def test_each_request_of_a_connection_has_its_own(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        for headers in (("X-Request-ID: a1",), (), ("X-Request-ID: a2",)):
            for path in ("/livez", "/api/usages"):
                method = "POST" if path == "/api/usages" else "GET"
                body = BODY if method == "POST" else b""
                device.send(render_request(method, path, body, headers=headers))
                said = device.read_answer().headers["x-request-id"]
                assert said == headers[0][-2:] if headers else MADE.fullmatch(said)


def test_what_is_no_http_is_named_too(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(b"nothing\r\n\r\n")
        answer = device.read_answer()
    assert answer.status == 400
    assert MADE.fullmatch(answer.headers["x-request-id"])
