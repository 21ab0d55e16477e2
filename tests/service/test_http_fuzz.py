"""Random bytes cause no server error, and nothing is stored that was refused.

To play a failed case again, set BUSYAPI_TEST_CASES_FROM to its number.
"""

import asyncio
import os
import time

import pytest

from testkit import mutants
from testkit.api_client import fetch_count
from testkit.broken_build import broken_build
from testkit.fuzzing import FuzzResult, make_case, parse_answers, play_all
from testkit.processes import Stack
from testkit.servers import Server
from tests.conftest import Stacks

FIRST = int(os.environ.get("BUSYAPI_TEST_CASES_FROM", "0"))
SHORT = 1_000
FULL = 5_000
LONG = 100_000
FLUSHER_SHARE = 5
"""One of this many cases also goes to the flusher's port, which reads heads with the same code."""


def play_cases(port: int, numbers: range) -> FuzzResult:
    """Play cases and check each of them by itself."""
    outcome = asyncio.run(play_all(port, numbers))
    assert not outcome.faults, f"{len(outcome.faults)} faults\n" + "\n".join(outcome.faults[:5])
    return outcome


def check_stored(stack: Stack, numbers: range) -> FuzzResult:
    """Play cases at an API and check the stored usages against the answers."""
    api = stack.apis[0]
    pid, before = api.pid, fetch_count(stack.port)
    outcome = play_cases(stack.port, numbers)
    added = fetch_count(stack.port) - before
    assert len(set(outcome.ids)) == len(outcome.ids), "an id came twice"
    assert len(outcome.ids) <= added <= len(outcome.ids) + outcome.max_unanswered
    assert all(before < usage_id <= before + added for usage_id in outcome.ids)
    assert (api.pid, api.check_alive()) == (pid, True)
    failures = api.read_metric("busyapi_requests_total", status="500")
    assert failures == 0
    return outcome


@pytest.mark.parametrize(
    ("cases", "first"),
    [
        (SHORT, FIRST),
        pytest.param(FULL, FIRST, marks=[pytest.mark.full, pytest.mark.timeout(240)]),
        pytest.param(
            LONG,
            FIRST or time.time_ns() % 10**12,
            marks=[pytest.mark.long, pytest.mark.timeout(7200)],
        ),
    ],
    ids=["short", "full", "long"],
)
def test_any_bytes_are_answered_or_dropped(contract: Stack, cases: int, first: int) -> None:
    outcome = check_stored(contract, range(first, first + cases))
    assert outcome.statuses[201] > cases / 10, outcome.statuses
    assert outcome.statuses[400] > cases / 10, outcome.statuses
    assert {200, 404, 405, 413, 415, 417, 422} <= outcome.statuses.keys(), outcome.statuses
    assert outcome.max_unanswered < cases / 10, (
        "too many connections were reset for a meaningful result"
    )
    inside = play_cases(contract.flushers[0].port, range(first, first + cases // FLUSHER_SHARE))
    assert {200, 400, 404, 405} <= inside.statuses.keys(), inside.statuses
    assert 201 not in inside.statuses


@pytest.mark.mutants
def test_a_server_that_stores_without_an_answer_is_caught(valkey: Server, stacks: Stacks) -> None:
    broken = broken_build(mutants.close_at_half_close)
    stack = stacks(valkey, settings={**broken, "BUSYAPI_FAST_PATH": "off"})
    with pytest.raises(AssertionError, match="assert"):
        check_stored(stack, range(200))


@pytest.mark.mutants
def test_a_server_that_fails_is_caught(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.fail_on_malformed_heads))
    with pytest.raises(AssertionError, match="500"):
        check_stored(stack, range(200))


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 500 Internal Server Error\r\ndate: x\r\nx-request-id: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-request-id: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ndate: x\r\nx-request-id: a\r\nA: b\r\na: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ndate: x\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ndate: x\r\nx-request-id: a\r\nconnection: close\r\n\r\nHTTP/1.1 2",
        b"HTTP/1.1 400 Bad Request\r\ndate: x\r\nx-request-id: a\r\ncontent-type: text/a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ndate: x\ny\r\nx-request-id: a\r\n\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_an_invalid_answer_is_caught(received: bytes) -> None:
    with pytest.raises((AssertionError, KeyError)):
        list(parse_answers(received, is_complete=True))


def test_a_case_is_a_function_of_its_number() -> None:
    assert [make_case(n) for n in range(50)] == [make_case(n) for n in range(50)]
    assert len({make_case(n).packets for n in range(50)}) > 45
