"""Idempotency-Key: the same key with the same body gives the same answer, and stores it once."""

import gzip
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    fetch_count,
    render_request,
    send,
)
from testkit.http1 import Answer
from testkit.log_leaks import MARK
from testkit.processes import Stack
from tests.service.conftest import StartApi

BATCH = "/api/usages/batch"


def make_key() -> str:
    """Return a new key."""
    return f"{MARK}-{uuid.uuid4().hex}"


def is_replayed(answer: Answer) -> bool:
    """Return whether an answer is marked as a replay."""
    header = answer.headers.get("idempotency-replayed")
    assert header in {None, "true"}
    return header is not None


def test_the_same_key_and_body_give_the_same_id_and_say_so(contract: Stack) -> None:
    name = make_key()
    first = send(contract.port, USAGE, idempotency_key=name)
    assert not is_replayed(first)
    with check_nothing_stored(contract.port):
        for _ in range(3):
            again = send(contract.port, USAGE, idempotency_key=name)
            assert is_replayed(again)
            assert check_stored(again) == check_stored(first)


def test_another_spelling_of_the_same_usage_is_the_same_body(contract: Stack) -> None:
    name = make_key()
    first = send(contract.port, USAGE, idempotency_key=name)
    packed = gzip.compress(json.dumps(USAGE, indent=4).encode())
    again = send(contract.port, packed, idempotency_key=name, content_encoding="gzip")
    assert check_stored(again) == check_stored(first)


def test_the_same_key_with_another_body_is_422(contract: Stack) -> None:
    name = make_key()
    first = check_stored(send(contract.port, USAGE, idempotency_key=name))
    with check_nothing_stored(contract.port):
        other = send(contract.port, USAGE | {"medication": "other"}, idempotency_key=name)
        assert "errors" not in check_problem(other, 422)
        check_problem(send(contract.port, [USAGE], BATCH, idempotency_key=name), 422)
    assert check_stored(send(contract.port, USAGE, idempotency_key=name)) == first


def test_a_batch_may_have_a_key(contract: Stack) -> None:
    name = make_key()
    first = send(contract.port, [USAGE] * 7, BATCH, idempotency_key=name)
    assert not is_replayed(first)
    with check_nothing_stored(contract.port):
        again = send(contract.port, [USAGE] * 7, BATCH, idempotency_key=name)
        assert is_replayed(again)
        assert again.json() == first.json()
        assert len(first.json()["ids"]) == 7
        check_problem(send(contract.port, [USAGE] * 8, BATCH, idempotency_key=name), 422)


def test_a_refused_usage_leaves_its_key_free(contract: Stack) -> None:
    name = make_key()
    check_problem(send(contract.port, {}, idempotency_key=name), 422)
    assert not is_replayed(send(contract.port, USAGE, idempotency_key=name))


@pytest.mark.parametrize("bad", ["", "x" * 129, "two words", "tab\there", "\x7f", "é"])
def test_a_malformed_key_is_400(contract: Stack, bad: str) -> None:
    with check_nothing_stored(contract.port):
        for path, body in (("/api/usages", USAGE), (BATCH, [USAGE])):
            answer = send(contract.port, body, path, idempotency_key=bad)
            check_problem(answer, 400)
            assert not bad or bad.encode() not in answer.body


@pytest.mark.parametrize("good", ["!", "~" * 128, '"quoted-as-in-the-draft"', "a,b;c=d"])
def test_a_key_may_have_any_visible_characters(contract: Stack, good: str) -> None:
    assert not is_replayed(send(contract.port, USAGE, idempotency_key=good))
    assert is_replayed(send(contract.port, USAGE, idempotency_key=good))


def test_blanks_around_a_key_are_ignored(contract: Stack) -> None:
    """By RFC 9110, section 5.5, a field value does not include them."""
    name = make_key()
    first = check_stored(send(contract.port, USAGE, idempotency_key=name))
    with RawConnection(contract.port) as device:
        device.send(
            render_request("POST", "/api/usages", BODY, headers=(f"Idempotency-Key: \t {name} \t",))
        )
        assert check_stored(device.read_answer()) == first


def test_two_keys_are_400(contract: Stack) -> None:
    headers = (f"Idempotency-Key: {make_key()}",) * 2
    with RawConnection(contract.port) as device, check_nothing_stored(contract.port):
        device.send(render_request("POST", "/api/usages", BODY, headers=headers))
        check_problem(device.read_answer(), 400)


def test_a_key_is_known_to_every_api_process(contract: Stack, start_api: StartApi) -> None:
    other = start_api()
    name = make_key()
    first = send(contract.port, USAGE, idempotency_key=name)
    again = send(other.port, USAGE, idempotency_key=name)
    assert (is_replayed(first), is_replayed(again)) == (False, True)
    assert check_stored(again) == check_stored(first)


def test_one_key_sent_by_many_at_once_stores_one_usage(
    contract: Stack, start_api: StartApi
) -> None:
    ports = [contract.port, start_api().port]
    for _ in range(5):
        name, together = make_key(), threading.Barrier(16)

        def post(number: int, name: str = name, together: Any = together) -> Answer:
            together.wait(10)
            return send(ports[number % 2], USAGE, idempotency_key=name)

        before = fetch_count(contract.port)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(post, range(16)))
        assert len({check_stored(answer) for answer in answers}) == 1
        assert [is_replayed(answer) for answer in answers].count(False) == 1
        assert fetch_count(contract.port) == before + 1


def test_a_key_with_another_body_at_the_same_time_stores_one_of_the_two(contract: Stack) -> None:
    name, together = make_key(), threading.Barrier(8)

    def post(number: int) -> Answer:
        together.wait(10)
        return send(contract.port, USAGE | {"n": number % 2}, idempotency_key=name)

    before = fetch_count(contract.port)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sorted(answer.status for answer in answers) == [201] * 4 + [422] * 4
    assert fetch_count(contract.port) == before + 1


def test_keys_have_no_ttl_in_redis(contract: Stack) -> None:
    url = contract.apis[0].environment["BUSYAPI_REDIS_URL"]
    check_stored(send(contract.port, USAGE, idempotency_key=make_key()))
    with redis.Redis.from_url(url, decode_responses=True) as store:
        names = set(store.scan_iter("busyapi:{0}:key*"))
        assert names
        assert {store.ttl(name) for name in names} == {-1}


def test_a_key_belongs_to_the_patient(contract: Stack) -> None:
    """Devices number their doses, so without credentials two patients may use the same key."""
    name = make_key()
    first = check_stored(send(contract.port, USAGE, idempotency_key=name))
    other = USAGE | {"patientId": f"{MARK}-another"}
    second = send(contract.port, other, idempotency_key=name)
    assert not is_replayed(second)
    assert check_stored(second) == first + 1
    for body, usage_id in ((USAGE, first), (other, first + 1)):
        again = send(contract.port, body, idempotency_key=name)
        assert (is_replayed(again), check_stored(again)) == (True, usage_id)


def test_a_patient_id_is_the_same_as_number_and_as_text(contract: Stack) -> None:
    name = make_key()
    check_stored(send(contract.port, USAGE | {"patientId": 100}, idempotency_key=name))
    check_problem(send(contract.port, USAGE | {"patientId": "100"}, idempotency_key=name), 422)


def test_the_key_of_a_batch_belongs_to_all_its_patients(contract: Stack) -> None:
    name = make_key()
    two, three = (
        [USAGE | {"patientId": f"{MARK}-{n}"} for n in range(patients)] for patients in (2, 3)
    )
    first = send(contract.port, two, BATCH, idempotency_key=name)
    other = send(contract.port, three, BATCH, idempotency_key=name)
    assert (other.status, is_replayed(other)) == (201, False)
    again = send(contract.port, two, BATCH, idempotency_key=name)
    assert is_replayed(again)
    assert again.json() == first.json()
    # The same patients in another order are the same owner with another body.
    check_problem(send(contract.port, two[::-1], BATCH, idempotency_key=name), 422)
