"""Reading back: one usage from buffer and archive, counts, pages and probes."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from busyapi.archive.format import UsageBatch
from busyapi.ids import Seq
from testkit.api_client import BODY, USAGE, check_problem, check_stored, send
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
    paths = [f"/api/usages/{each}" for each in ids]
    buffered = [fetch(contract.port, path) for path in paths]
    contract.wait_until_archived()
    archived = [fetch(contract.port, path) for path in paths]
    assert [each.body for each in buffered] == [each.body for each in archived]
    for number, answer in zip(ids, archived, strict=True):
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        said = answer.json()
        assert list(said) == ["id", "receivedAt", "usage"]
        assert said["id"] == number
    assert archived[1].json()["usage"] == json.loads(odd)


def test_received_at_is_when_it_was_received(contract: Stack) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    number = check_stored(send(contract.port, USAGE))
    text = fetch(contract.port, f"/api/usages/{number}").json()["receivedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert before <= datetime.fromisoformat(text) <= datetime.now(UTC)


@pytest.mark.parametrize("number", [0, -1, 2**53, 2**53 + 1, 2**64, 10**30])
def test_an_id_that_cannot_be_is_404(contract: Stack, number: int) -> None:
    said = check_problem(fetch(contract.port, f"/api/usages/{number}"), 404)
    assert said["detail"] == "No usage has this id."


def test_an_id_that_was_never_issued_is_404_until_it_is(contract: Stack) -> None:
    number = check_stored(send(contract.port, USAGE)) + 1
    check_problem(fetch(contract.port, f"/api/usages/{number}"), 404)
    assert check_stored(send(contract.port, USAGE)) == number
    assert fetch(contract.port, f"/api/usages/{number}").status == 200


def test_a_usage_whose_retention_is_over_is_410(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_RETENTION_DAYS": "1"})
    flusher = stack.flushers[0]
    assert flusher.stop() == 0
    # Three usages of three days ago, in a file and a folder as old.
    old = datetime.now(UTC) - timedelta(days=3)
    writer = open_archive(stack.archive, bound=1_000_000)
    received = int(old.timestamp() * 1000)
    writer.append([UsageBatch(Seq(1), Seq(3), received, [BODY] * 3)])
    writer.close()
    (day,) = (stack.archive / "p00").glob("????-??-??")
    day.rename(day.with_name(f"{old:%Y-%m-%d}"))
    flusher.start()
    # A usage of today: until there is one, the newest is as old as the clocks differ.
    wait_until(lambda: send(stack.port, USAGE).status == 201, "usages to be taken", seconds=20)
    path = "/api/usages/1"
    wait_until(lambda: fetch(stack.port, path).status == 410, "the old ones to go", seconds=20)
    for number in (1, 2, 3):
        said = check_problem(fetch(stack.port, f"/api/usages/{number}"), 410)
        assert said["detail"] == "The usage is no longer kept."


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
        assert b"{{" not in page.body, "everything is filled in"
    for accept in ("application/json", "application/json;q=0.9, */*;q=0.1"):
        facts = fetch(contract.port, "/", headers={"accept": accept})
        assert facts.headers["content-type"] == "application/json"
        assert facts.headers["vary"] == "Accept"
        said = facts.json()
        assert said["counts"] == fetch(contract.port, "/api/usages/count").json()
        assert said["version"].encode() in page.body
        assert "curl -X POST" in said["curl"]


def test_probes_have_a_line_for_each_check(contract: Stack) -> None:
    live, ready = fetch(contract.port, "/livez"), fetch(contract.port, "/readyz")
    assert (live.status, live.body) == (200, b"loop: ok\n")
    assert (ready.status, ready.body) == (200, b"draining: ok\npartition: ok\ndurability: ok\n")
    for each in (live, ready):
        assert each.headers["content-type"] == "text/plain; charset=utf-8"


def test_four_partitions_give_ids_apart_and_read_them_back(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, partitions=4)
    posted = {}
    for number in range(40):
        usage = USAGE | {"n": number}
        posted[check_stored(send(stack.port, usage))] = usage
    batch = send(stack.port, [USAGE | {"n": -1}] * 3, BATCH).json()["ids"]
    assert batch[1] - batch[0] == batch[2] - batch[1] == 4
    assert len(posted) == 40
    assert {each % 4 for each in posted} == {0, 1, 2, 3}, "every partition takes its share"
    assert fetch(stack.port, "/api/usages/count").json()["count"] == 43
    for _ in ("buffer", "archive"):
        for number, usage in posted.items():
            assert fetch(stack.port, f"/api/usages/{number}").json()["usage"] == usage
        stack.wait_until_archived()
