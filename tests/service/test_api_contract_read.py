"""Reads: one usage from the buffer and the archive, counts, pages and probes."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from testkit.api_client import BODY, USAGE, check_problem, check_stored, send
from testkit.archive.builder import join_usages
from testkit.http1 import fetch
from testkit.in_process import open_archive
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

BATCH = "/api/usages/batch"


def test_a_usage_is_the_same_bytes_from_the_buffer_and_from_the_archive(contract: Stack) -> None:
    odd = (
        BODY[:-1] + ', "ä\\u00e9\\/":[1.50,1e2,-0.0,"\\u2028\\ud83d\\ude00"],"a":1,"a":2}'.encode()
    )
    ids = [check_stored(send(contract.port, BODY)), check_stored(send(contract.port, odd))]
    ids += send(contract.port, [USAGE] * 3, BATCH).json()["ids"]
    paths = [f"/api/usages/{usage_id}" for usage_id in ids]
    buffered = [fetch(contract.port, path) for path in paths]
    contract.wait_until_archived()
    archived = [fetch(contract.port, path) for path in paths]
    assert [answer.body for answer in buffered] == [answer.body for answer in archived]
    for number, answer in zip(ids, archived, strict=True):
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        reply = answer.json()
        assert list(reply) == ["id", "receivedAt", "usage"]
        assert reply["id"] == number
    assert archived[1].json()["usage"] == json.loads(odd)


def test_received_at_is_the_time_of_the_post(contract: Stack) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    number = check_stored(send(contract.port, USAGE))
    text = fetch(contract.port, f"/api/usages/{number}").json()["receivedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert before <= datetime.fromisoformat(text) <= datetime.now(UTC)


@pytest.mark.parametrize("number", [0, -1, 2**53, 2**53 + 1, 2**64, 10**30])
def test_an_impossible_id_is_404(contract: Stack, number: int) -> None:
    reply = check_problem(fetch(contract.port, f"/api/usages/{number}"), 404)
    assert reply["detail"] == "No usage has this id."


def test_an_id_that_was_never_issued_is_404_until_it_is(contract: Stack) -> None:
    number = check_stored(send(contract.port, USAGE)) + 1
    check_problem(fetch(contract.port, f"/api/usages/{number}"), 404)
    assert check_stored(send(contract.port, USAGE)) == number
    assert fetch(contract.port, f"/api/usages/{number}").status == 200


def test_an_expired_usage_is_410(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_RETENTION_DAYS": "1"})
    flusher = stack.flushers[0]
    assert flusher.stop() == 0
    # Three usages from three days ago, in a file and a folder of that day.
    old = datetime.now(UTC) - timedelta(days=3)
    writer = open_archive(stack.archive, bound=1_000_000)
    received = int(old.timestamp() * 1000)
    writer.append([join_usages(1, [BODY] * 3, received)])
    writer.close()
    (day,) = (stack.archive / "p00").glob("????-??-??")
    day.rename(day.with_name(f"{old:%Y-%m-%d}"))
    flusher.start()
    # A usage of today: without one, retention cannot distinguish old usages from a wrong clock.
    wait_until(lambda: send(stack.port, USAGE).status == 201, "usages to be stored", seconds=20)
    path = "/api/usages/1"
    wait_until(lambda: fetch(stack.port, path).status == 410, "the old ones to expire", seconds=20)
    for number in (1, 2, 3):
        reply = check_problem(fetch(stack.port, f"/api/usages/{number}"), 410)
        assert reply["detail"] == "The usage is no longer kept."
    assert flusher.read_metric("busyapi_archive_retention_seconds") == 86_400


def test_counts_add_up_and_reach_the_archive(contract: Stack) -> None:
    contract.wait_until_archived()
    before = fetch(contract.port, "/api/usages/count").json()
    assert list(before) == ["count", "archived", "buffered"]
    assert before["count"] == before["archived"]
    assert before["buffered"] == 0
    send(contract.port, [USAGE] * 100, BATCH)
    check_stored(send(contract.port, USAGE))
    now = fetch(contract.port, "/api/usages/count").json()
    assert now["count"] == before["count"] + 101
    assert now["archived"] + now["buffered"] == now["count"]
    contract.wait_until_archived()
    after = fetch(contract.port, "/api/usages/count").json()
    assert after["archived"] == after["count"] == now["count"]


def test_the_landing_page_is_html_for_a_browser_and_json_for_a_program(contract: Stack) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for accept in (browser, "*/*", "", "text/html, application/json"):
        page = fetch(contract.port, "/", headers={"accept": accept})
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "Accept"
        assert b"{{" not in page.body, "a placeholder is left"
    for accept in ("application/json", "application/json;q=0.9, */*;q=0.1"):
        facts = fetch(contract.port, "/", headers={"accept": accept})
        assert facts.headers["content-type"] == "application/json"
        assert facts.headers["vary"] == "Accept"
        reply = facts.json()
        assert reply["counts"] == fetch(contract.port, "/api/usages/count").json()
        assert reply["version"].encode() in page.body
        assert "curl -X POST" in reply["curl"]


def test_probes_have_a_line_for_each_check(contract: Stack) -> None:
    live, ready = fetch(contract.port, "/livez"), fetch(contract.port, "/readyz")
    assert (live.status, live.body) == (200, b"loop: ok\n")
    assert (ready.status, ready.body) == (200, b"draining: ok\npartition: ok\ndurability: ok\n")
    for probe in (live, ready):
        assert probe.headers["content-type"] == "text/plain; charset=utf-8"


def test_four_partitions_give_distinct_ids_that_can_be_read(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, partitions=4)
    posted = {}
    for number in range(40):
        usage = USAGE | {"n": number}
        posted[check_stored(send(stack.port, usage))] = usage
    batch = send(stack.port, [USAGE | {"n": -1}] * 3, BATCH).json()["ids"]
    assert batch[1] - batch[0] == batch[2] - batch[1] == 4
    assert len(posted) == 40
    assert {usage_id % 4 for usage_id in posted} == {0, 1, 2, 3}, "a partition has stored none"
    assert fetch(stack.port, "/api/usages/count").json()["count"] == 43
    for _ in ("buffer", "archive"):
        for number, usage in posted.items():
            assert fetch(stack.port, f"/api/usages/{number}").json()["usage"] == usage
        stack.wait_until_archived()
