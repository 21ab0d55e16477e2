"""Errors while Redis, the flusher or an archived usage is unavailable."""

from collections.abc import Iterator

import pytest

from testkit.api_client import USAGE, check_problem, check_stored, check_unavailable, send
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey that a test may stop and must start again."""
    with Server(tmp_path_factory.mktemp("away") / "valkey") as server:
        yield server


@pytest.fixture(scope="module")
def stack(store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that a test may stop and must start again."""
    # Each usage that arrives in the first second without Redis waits for its deadline.
    settings = {"BUSYAPI_COMMIT_DEADLINE": "1"}
    with Stack(tmp_path_factory.mktemp("away"), store, settings=settings) as running:
        yield running


def test_without_redis_nothing_is_stored_and_the_archive_is_still_read(
    stack: Stack, store: Server
) -> None:
    archived = check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    record = fetch(stack.port, f"/api/usages/{archived}").body
    store.kill9()
    wait_until(
        lambda: stack.apis[0].read_metric("busyapi_committers_ready") == 0,
        "the committer to see that Redis died",
    )
    answers = [send(stack.port, USAGE), send(stack.port, [USAGE] * 3, "/api/usages/batch")]
    answers.append(fetch(stack.port, "/api/usages/count"))
    for answer in answers:
        reply = check_unavailable(answer, stored="no")
        assert str(store.port) not in reply["detail"], "devices must not see Redis's address"
    assert fetch(stack.port, f"/api/usages/{archived}").body == record
    check_unavailable(fetch(stack.port, f"/api/usages/{archived + 1}"), stored="no")
    assert fetch(stack.port, "/livez").status == 200
    assert fetch(stack.port, "/readyz").status == 200, "every pod would leave the Service at once"
    assert fetch(stack.port, "/", headers={"accept": "application/json"}).json()["counts"] is None
    assert fetch(stack.port, "/").status == 200
    store.start()
    wait_until(lambda: send(stack.port, USAGE).status == 201, "Redis to be back", seconds=20)


def test_without_the_flusher_buffered_usages_are_read_and_archived_ones_are_503(
    stack: Stack,
) -> None:
    archived = check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    flusher = stack.flushers[0]
    assert flusher.stop() == 0
    before = fetch(stack.port, "/api/usages/count").json()
    buffered = check_stored(send(stack.port, USAGE))
    assert fetch(stack.port, f"/api/usages/{buffered}").json()["usage"] == USAGE
    reply = check_unavailable(fetch(stack.port, f"/api/usages/{archived}"), stored="no")
    assert str(flusher.port) not in reply["detail"]
    check_problem(fetch(stack.port, f"/api/usages/{buffered + 1}"), 404)
    counted = {"count": before["count"] + 1, "archived": before["count"], "buffered": 1}
    assert fetch(stack.port, "/api/usages/count").json() == counted
    assert fetch(stack.port, "/readyz").status == 200
    flusher.start()
    stack.wait_until_archived()
    for number in (archived, buffered):
        assert fetch(stack.port, f"/api/usages/{number}").json()["usage"] == USAGE


def test_before_a_flusher_has_seeded_the_partition_nothing_is_stored(
    stack: Stack, store: Server
) -> None:
    flusher, api = stack.flushers[0], stack.apis[0]
    last = check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    assert (api.stop(), flusher.stop()) == (0, 0)
    store.client().flushall()
    api.spawn()

    def readiness_lines() -> dict[str, str]:
        try:
            answer = fetch(stack.port, "/readyz")
        except OSError:
            return {}
        assert answer.status == 503
        return dict(line.split(": ", 1) for line in answer.body.decode().splitlines())

    wait_until(readiness_lines, "the API to listen", seconds=30)
    wait_until(
        lambda: readiness_lines()["partition"] == "partition 0 is not seeded yet",
        "readyz to give the reason",
    )
    assert fetch(stack.port, "/livez").status == 200
    check_unavailable(send(stack.port, USAGE), stored="no")
    check_unavailable(fetch(stack.port, "/api/usages/count"), stored="no")
    assert fetch(stack.port, "/", headers={"accept": "application/json"}).json()["counts"] is None
    flusher.start()
    wait_until(lambda: fetch(stack.port, "/readyz").status == 200, "the API to be ready")
    assert fetch(stack.port, "/api/usages/count").json()["archived"] == last
    assert check_stored(send(stack.port, USAGE)) > last


def test_after_a_promotion_longer_than_every_deadline_usages_are_stored_again(
    stack: Stack, store: Server
) -> None:
    check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    store.command("REPLICAOF", "127.0.0.1", 1)
    check_unavailable(send(stack.port, USAGE), stored="no")
    store.command("REPLICAOF", "NO", "ONE")
    wait_until(
        lambda: send(stack.port, USAGE).status == 201, "the committer to store usages", seconds=20
    )


def test_readyz_fails_and_names_the_setting_that_does_not_meet_the_tier(
    stack: Stack, store: Server
) -> None:
    check_stored(send(stack.port, USAGE))
    store.client().config_set("appendfsync", "everysec")
    # An open connection is checked again every few seconds.
    wait_until(lambda: fetch(stack.port, "/readyz").status == 503, "readyz to fail", seconds=20)
    text = fetch(stack.port, "/readyz").body.decode()
    assert "appendfsync is everysec: set `appendfsync always`" in text
    wait_until(lambda: send(stack.port, USAGE).status == 503, "usages to be refused")
    check_unavailable(send(stack.port, USAGE), stored="no")
    assert fetch(stack.port, "/livez").status == 200
    store.client().config_set("appendfsync", "always")
    wait_until(lambda: send(stack.port, USAGE).status == 201, "usages to be stored", seconds=20)
    assert fetch(stack.port, "/readyz").status == 200
