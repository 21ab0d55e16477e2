"""POST /api/usages/batch: many usages, all of them or none."""

import gzip
import json
from itertools import pairwise

import pytest

from testkit.api_client import BODY, USAGE, check_nothing_stored, check_problem, send
from testkit.http1 import Answer, fetch
from testkit.processes import Stack

PATH = "/api/usages/batch"
NDJSON = "application/x-ndjson"


def ids(answer: Answer) -> list[int]:
    """Return the ids of a batch that was stored."""
    assert answer.status == 201, answer
    reply = answer.json()
    assert list(reply) == ["ids"]
    usage_ids: list[int] = reply["ids"]
    assert all(after == before + 1 for before, after in pairwise(usage_ids))
    return usage_ids


def stored_medications(stack: Stack, usage_ids: list[int]) -> list[object]:
    """Return the medication that is stored under each id."""
    return [
        fetch(stack.port, f"/api/usages/{usage_id}").json()["usage"]["medication"]
        for usage_id in usage_ids
    ]


def test_an_array_is_stored_in_the_order_sent(contract: Stack) -> None:
    usages = [USAGE | {"medication": str(number)} for number in range(5)]
    usage_ids = ids(send(contract.port, usages, PATH))
    assert stored_medications(contract, usage_ids) == ["0", "1", "2", "3", "4"]


def test_ndjson_is_stored_in_the_order_sent(contract: Stack) -> None:
    lines = [json.dumps(USAGE | {"medication": str(number)}) for number in range(5)]
    for text in ("\n".join(lines), "\r\n".join(lines) + "\r\n"):
        usage_ids = ids(send(contract.port, text.encode(), PATH, content_type=NDJSON))
        assert stored_medications(contract, usage_ids) == ["0", "1", "2", "3", "4"]


def test_a_gzip_batch_is_stored(contract: Stack) -> None:
    packed = gzip.compress(json.dumps([USAGE] * 50).encode())
    assert len(ids(send(contract.port, packed, PATH, content_encoding="gzip"))) == 50


def test_a_batch_of_one_and_a_trailing_slash_are_fine(contract: Stack) -> None:
    assert len(ids(send(contract.port, [USAGE], PATH + "/"))) == 1


def test_ten_thousand_usages_are_stored_and_one_more_is_422(contract: Stack) -> None:
    body = b"[" + b",".join([BODY] * 10_000) + b"]"
    assert len(ids(send(contract.port, body, PATH))) == 10_000
    ndjson = b"\n".join([BODY] * 10_000)
    assert len(ids(send(contract.port, ndjson, PATH, content_type=NDJSON))) == 10_000
    with check_nothing_stored(contract.port):
        refused = check_problem(send(contract.port, body[:-1] + b"," + BODY + b"]", PATH), 422)
        check_problem(send(contract.port, ndjson + b"\n" + BODY, PATH, content_type=NDJSON), 422)
    assert [error["pointer"] for error in refused["errors"]] == [""]


def test_a_batch_over_four_mebibytes_is_413(contract: Stack) -> None:
    def batch(size: int) -> bytes:
        return b"[" + BODY + b" " * (size - len(BODY) - 2) + b"]"

    assert len(ids(send(contract.port, batch(4 << 20), PATH))) == 1
    with check_nothing_stored(contract.port):
        check_problem(send(contract.port, batch((4 << 20) + 1), PATH), 413)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"[]", ""), (b"[]", "application/json"), (b"", NDJSON), (b"\n\n", NDJSON)],
)
def test_an_empty_batch_is_422(contract: Stack, body: bytes, content_type: str) -> None:
    reply = check_problem(send(contract.port, body, PATH, content_type=content_type), 422)
    assert [error["pointer"] for error in reply["errors"]] == [""]


def test_one_bad_item_refuses_all_and_every_bad_item_is_named(contract: Stack) -> None:
    batch = [USAGE, USAGE | {"medication": ""}, 7, USAGE, {"patientId": 1}]
    with check_nothing_stored(contract.port):
        array = check_problem(send(contract.port, batch, PATH), 422)
        lines = b"\n".join(json.dumps(item).encode() for item in batch) + b"\n{broken"
        ndjson = check_problem(send(contract.port, lines, PATH, content_type=NDJSON), 422)
    pointers = ["/1/medication", "/2", "/4/timestamp", "/4/medication"]
    assert [error["pointer"] for error in array["errors"]] == pointers
    assert [error["pointer"] for error in ndjson["errors"]] == [*pointers, "/5"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (BODY, "application/json", 400),
        (b"[" + BODY, "application/json", 400),
        (b"[" + BODY + b",]", "application/json", 400),
        (b"[\xff]", "application/json", 400),
        (b"patientId=1", "application/x-www-form-urlencoded", 415),
        (b"<xml/>", "application/xml", 415),
    ],
)
def test_a_body_that_is_not_a_batch_is_refused(
    contract: Stack, body: bytes, content_type: str, status: int
) -> None:
    with check_nothing_stored(contract.port):
        check_problem(send(contract.port, body, PATH, content_type=content_type), status)
