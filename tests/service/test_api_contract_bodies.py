"""Refused bodies: the error, its pointers, and that nothing is stored."""

import gzip
import json
from typing import Any

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    render_request,
    send,
)
from testkit.processes import Stack
from tests.service.conftest import StartApi

MARKER = b"zQ7-never-shown"
"""Part of the bodies that must not appear in the errors."""

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"null",
        b'"zQ7-never-shown"',
        b"7",
        b"[]",
        b"[" + BODY + b"]",
        b'{"patientId":"zQ7-never-shown"',
        b"{'patientId':'zQ7-never-shown'}",
        BODY + b"zQ7-never-shown",
        BODY + BODY,
        b'{"patientId":"\xff zQ7-never-shown","timestamp":0,"medication":"a"}',
        b'{"patientId":"zQ7-never-shown","timestamp":NaN,"medication":"a"}',
        b'{"a":' * 100 + b'"zQ7-never-shown"' + b"}" * 100,
        b"[" * 60_000,
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_a_body_that_is_not_a_json_object_is_400(contract: Stack, body: bytes) -> None:
    with check_nothing_stored(contract.port):
        answer = send(contract.port, body)
    check_problem(answer, 400)
    assert MARKER not in answer.body


@pytest.mark.parametrize("body", [b"zQ7-never-shown", b"a&zQ7-never-shown", b"=%ff"])
def test_a_broken_form_is_400(contract: Stack, body: bytes) -> None:
    with check_nothing_stored(contract.port):
        answer = send(contract.port, body, content_type=FORM)
    check_problem(answer, 400)
    assert MARKER not in answer.body


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"patientId": ""}, ["/patientId"]),
        ({"patientId": "x" * 129}, ["/patientId"]),
        ({"patientId": 1.5}, ["/patientId"]),
        ({"patientId": True}, ["/patientId"]),
        ({"patientId": 2**53 + 1}, ["/patientId"]),
        ({"medication": ""}, ["/medication"]),
        ({"medication": "x" * 257}, ["/medication"]),
        ({"medication": 7}, ["/medication"]),
        ({"timestamp": "zQ7-never-shown"}, ["/timestamp"]),
        ({"timestamp": "2016-02-30T00:00:00Z"}, ["/timestamp"]),
        ({"timestamp": 1.5}, ["/timestamp"]),
        ({"patientId": None, "timestamp": [], "medication": {}}, [*map("/{}".format, USAGE)]),
    ],
)
def test_json_that_is_not_a_usage_is_422_with_a_pointer_for_each_reason(
    contract: Stack, change: dict[str, Any], pointers: list[str]
) -> None:
    with check_nothing_stored(contract.port):
        answer = send(contract.port, USAGE | change)
    reply = check_problem(answer, 422)
    assert [error["pointer"] for error in reply["errors"]] == pointers
    assert all(error.keys() == {"pointer", "detail"} for error in reply["errors"])
    assert MARKER not in answer.body


def test_missing_members_are_422_and_named(contract: Stack) -> None:
    with check_nothing_stored(contract.port):
        reply = check_problem(send(contract.port, {"other": 1}), 422)
    assert [error["pointer"] for error in reply["errors"]] == [*map("/{}".format, USAGE)]


def test_a_value_that_cannot_be_stored_exactly_is_422(contract: Stack) -> None:
    body = BODY[:-1] + b',"deep":{"a/b~c":[0,1e999]}}'
    with check_nothing_stored(contract.port):
        reply = check_problem(send(contract.port, body), 422)
    assert [error["pointer"] for error in reply["errors"]] == ["/deep/a~1b~0c/1"]


def test_a_field_sent_twice_in_a_form_is_422(contract: Stack) -> None:
    form = b"patientId=1&timestamp=zQ7-never-shown&medication=a&patientId=2"
    with check_nothing_stored(contract.port):
        answer = send(contract.port, form, content_type=FORM)
    assert [error["pointer"] for error in check_problem(answer, 422)["errors"]] == ["/patientId"]
    assert MARKER not in answer.body


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "multipart/form-data"]
)
def test_neither_json_nor_a_form_is_415(contract: Stack, content_type: str) -> None:
    with check_nothing_stored(contract.port):
        answer = send(contract.port, b"<zQ7-never-shown>", content_type=content_type)
    check_problem(answer, 415)
    assert MARKER not in answer.body


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zQ7-never-shown"])
def test_an_unknown_content_encoding_is_415(contract: Stack, encoding: str) -> None:
    with check_nothing_stored(contract.port):
        answer = send(contract.port, BODY, content_encoding=encoding)
    check_problem(answer, 415)
    assert MARKER not in answer.body


@pytest.mark.parametrize(
    "body",
    [BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + MARKER],
    ids=["bare", "cut", "more"],
)
def test_a_broken_gzip_body_is_400(contract: Stack, body: bytes) -> None:
    with check_nothing_stored(contract.port):
        check_problem(send(contract.port, body, content_encoding="gzip"), 400)


class TestOverTheLimit:
    """A body over a limit gets 413; the limits are settings."""

    def test_a_single_body_over_its_limit_is_413(
        self, contract: Stack, start_api: StartApi
    ) -> None:
        small = start_api(BUSYAPI_MAX_BODY_BYTES="200")
        check_stored(send(small.port, BODY + b" " * (200 - len(BODY))))
        with check_nothing_stored(contract.port):
            check_problem(send(small.port, BODY + b" " * (201 - len(BODY))), 413)

    def test_an_inflated_body_over_the_limit_is_413(self, contract: Stack) -> None:
        bomb = gzip.compress(BODY[:-1] + b"," + b" " * 50_000_000 + b"}")
        assert len(bomb) < 100_000
        for path in ("/api/usages", "/api/usages/batch"):
            with check_nothing_stored(contract.port):
                check_problem(send(contract.port, bomb, path, content_encoding="gzip"), 413)

    def test_a_content_length_over_the_limit_is_413_before_the_body(self, contract: Stack) -> None:
        with RawConnection(contract.port) as device, check_nothing_stored(contract.port):
            device.send(render_request("POST", "/api/usages", headers=("Content-Length: 5000000",)))
            assert check_problem(device.read_answer(), 413)

    def test_a_chunked_body_over_the_limit_is_413(self, contract: Stack) -> None:
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        with RawConnection(contract.port) as device, check_nothing_stored(contract.port):
            device.send(
                render_request("POST", "/api/usages", headers=("Transfer-Encoding: chunked",))
            )
            device.send(chunk * 5)
            check_problem(device.read_answer(), 413)

    @pytest.mark.parametrize("megabytes", [5, 30])
    def test_a_client_that_sends_all_before_it_reads_gets_its_413(
        self, contract: Stack, megabytes: int
    ) -> None:
        """Closing a connection with unread data would reset it and lose the answer."""
        body = b" " * (megabytes * 1_000_000)
        with RawConnection(contract.port) as device:
            device.send(render_request("POST", "/api/usages", body))
            check_problem(device.read_answer(), 413)
            assert device.is_closed_within(5)


def test_a_chunked_body_is_stored(contract: Stack) -> None:
    half = len(BODY) // 2
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:half], BODY[half:], b"")]
    with RawConnection(contract.port) as device:
        device.send(render_request("POST", "/api/usages", headers=("Transfer-Encoding: chunked",)))
        for chunk in chunks:
            device.send(chunk)
        check_stored(device.read_answer())


def test_an_error_has_at_most_a_hundred_reasons(contract: Stack) -> None:
    batch = json.dumps([{}] * 1000).encode()
    reply = check_problem(send(contract.port, batch, "/api/usages/batch"), 422)
    assert len(reply["errors"]) == 100
