"""Tokens, rate limits, and the limits of pending usages."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    check_unavailable,
    fetch_count,
    render_request,
    send,
)
from testkit.http1 import Answer, fetch
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

BATCH = "/api/usages/batch"
TOKENS = """\
# a device, a reader, and one that may do both

write  device-3f9c0d
read   reader-77ab21   # of the clinic
write,read both#51ee08
"""


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def guarded(start_api: StartApi, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """An API process that requires a token."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS)
    return start_api(BUSYAPI_TOKENS_FILE=str(path))


class TestAuthentication:
    """With a token file, every request for usages needs a token with the right for it."""

    def test_each_token_may_do_what_its_line_says(self, contract: Stack, guarded: Api) -> None:
        number = check_stored(send(contract.port, USAGE))
        for token, may_write, may_read in (
            ("device-3f9c0d", True, False),
            ("reader-77ab21", False, True),
            ("both#51ee08", True, True),
        ):
            wrote = send(guarded.port, USAGE, authorization=f"Bearer {token}")
            batch = send(
                guarded.port, [USAGE], "/api/usages/batch", authorization=f"bearer  {token}"
            )
            read = fetch(guarded.port, f"/api/usages/{number}", headers=bearer(token))
            assert wrote.status == batch.status == (201 if may_write else 403)
            assert read.status == (200 if may_read else 403)
            for reply in (wrote, batch, read):
                if reply.status == 403:
                    check_problem(reply, 403)

    @pytest.mark.parametrize(
        "credential",
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            "Bearer both",
            "Bearer \xff\xfe",
            "Bearer device-3f9c0d x",
            "Bearer device-3f9c0d,both#51ee08",
            "Basic device-3f9c0d",
            "device-3f9c0d",
        ],
    )
    def test_an_unknown_token_is_401(self, contract: Stack, guarded: Api, credential: str) -> None:
        header = (f"Authorization: {credential}",) if credential else ()
        with check_nothing_stored(contract.port):
            for method, path in (("POST", "/api/usages"), ("POST", "/api/usages/batch")):
                with RawConnection(guarded.port) as device:
                    device.send(render_request(method, path, BODY, headers=header))
                    answer = device.read_answer()
                check_problem(answer, 401)
                assert answer.headers["www-authenticate"] == 'Bearer realm="busyapi"'
                assert b"3f9c0d" not in answer.body
        with RawConnection(guarded.port) as device:
            device.send(render_request("GET", "/api/usages/1", headers=header))
            check_problem(device.read_answer(), 401)

    def test_paths_without_usages_need_no_token(self, guarded: Api) -> None:
        for path in ("/", "/openapi.json", "/livez", "/readyz"):
            assert fetch(guarded.port, path).status == 200

    def test_counts_need_the_right_to_read(self, guarded: Api) -> None:
        path, reader = "/api/usages/count", bearer("reader-77ab21")
        check_problem(fetch(guarded.port, path), 401)
        check_problem(fetch(guarded.port, path, headers=bearer("device-3f9c0d")), 403)
        assert fetch(guarded.port, path, headers=reader).status == 200
        facts = fetch(guarded.port, "/", headers={"accept": "application/json"}).json()
        assert facts["counts"] is None

    def test_the_token_is_checked_before_the_usage(self, guarded: Api) -> None:
        check_problem(send(guarded.port, b"no json"), 401)

    def test_a_bad_token_file_is_exit_code_2_and_names_the_line_not_the_token(
        self, contract: Stack, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text("write good-secret\n\nadmin other-secret\n")
        environment = {
            **(contract.apis[0].environment or {}),
            "BUSYAPI_TOKENS_FILE": str(path),
            "PORT": "0",
            "BUSYAPI_METRICS_PORT": "0",
        }
        run = subprocess.run(
            [sys.executable, "-m", "busyapi", "api"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert run.returncode == 2, run
        assert run.stderr.startswith("busyapi: BUSYAPI_TOKENS_FILE, line 3: ")
        assert "secret" not in run.stdout + run.stderr


class TestRate:
    """With a rate limit, each token or address has its own bucket."""

    def test_over_the_rate_is_429_until_retry_after(
        self, contract: Stack, start_api: StartApi
    ) -> None:
        # One in 2.5 seconds: rounded down, Retry-After would be too early.
        limited = start_api(BUSYAPI_RATE_LIMIT="0.4")
        check_stored(send(limited.port, USAGE))
        with check_nothing_stored(contract.port):
            answer = send(limited.port, USAGE)
            check_problem(answer, 429)
            check_problem(fetch(limited.port, "/api/usages/1"), 429)
        time.sleep(int(answer.headers["retry-after"]))
        check_stored(send(limited.port, USAGE))

    def test_a_burst_of_two_seconds_is_accepted(self, start_api: StartApi) -> None:
        limited = start_api(BUSYAPI_RATE_LIMIT="5")
        statuses = [send(limited.port, USAGE).status for _ in range(60)]
        assert statuses[:10] == [201] * 10
        assert 429 in statuses

    def test_each_token_has_a_rate_of_its_own(self, start_api: StartApi, tmp_path: Path) -> None:
        path = tmp_path / "tokens"
        path.write_text("write first\nwrite second\n")
        limited = start_api(BUSYAPI_TOKENS_FILE=str(path), BUSYAPI_RATE_LIMIT="0.01")

        def post(token: str) -> int:
            return send(limited.port, USAGE, authorization=f"Bearer {token}").status

        assert [post("first"), post("first"), post("second"), post("second")] == [201, 429] * 2
        assert post("unknown") == 401

    def test_each_usage_of_a_batch_counts(self, contract: Stack, start_api: StartApi) -> None:
        # The burst is 10: after a batch of 8, 9 more are too many.
        limited = start_api(BUSYAPI_RATE_LIMIT="5")

        def post(usages: int) -> Answer:
            return send(limited.port, [USAGE] * usages, "/api/usages/batch")

        assert post(8).status == 201
        with check_nothing_stored(contract.port):
            answer = post(9)
            check_problem(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1

    def test_a_batch_larger_than_the_burst_is_accepted_and_leaves_a_debt(
        self, contract: Stack, start_api: StartApi
    ) -> None:
        limited = start_api(BUSYAPI_RATE_LIMIT="1")
        assert send(limited.port, [USAGE] * 500, "/api/usages/batch").status == 201
        with check_nothing_stored(contract.port):
            for body, path in (([USAGE] * 500, "/api/usages/batch"), (USAGE, "/api/usages")):
                answer = send(limited.port, body, path)
                check_problem(answer, 429)
                assert 490 <= int(answer.headers["retry-after"]) <= 502

    def test_after_a_refused_batch_others_are_refused_unread_until_retry_after(
        self, contract: Stack, start_api: StartApi
    ) -> None:
        # The burst is 4, and one token returns every half second.
        limited = start_api(BUSYAPI_RATE_LIMIT="2")
        assert [send(limited.port, USAGE).status for _ in range(3)] == [201] * 3
        with check_nothing_stored(contract.port):
            answer = send(limited.port, [USAGE] * 5_000, BATCH)
            check_problem(answer, 429)
            assert answer.headers["retry-after"] == "2"
            refused_at = time.monotonic()
            time.sleep(1)
            # The bucket is not empty, but a batch is still refused, before its body is sent.
            with RawConnection(limited.port) as device:
                device.send(render_request("POST", BATCH, headers=("Content-Length: 4000000",)))
                check_problem(device.read_answer(), 429)
        check_stored(send(limited.port, USAGE))
        time.sleep(max(0.0, refused_at + 2.5 - time.monotonic()))
        assert send(limited.port, [USAGE], BATCH).status == 201

    def test_wrong_tokens_have_a_bucket_of_their_own_and_good_ones_pass(
        self, start_api: StartApi, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text("write good-token\n")
        guarded = start_api(BUSYAPI_TOKENS_FILE=str(path))
        statuses = []
        for number in range(150):
            headers = bearer(f"guess-{number}")
            answer = fetch(guarded.port, "/api/usages/1", headers=headers)
            statuses.append(answer.status)
        assert set(statuses) == {401, 429}
        assert statuses[:50] == [401] * 50
        assert statuses.count(401) < 100
        check_problem(answer, 429)
        assert answer.headers["retry-after"] == "1"
        assert send(guarded.port, USAGE, authorization="Bearer good-token").status == 201
        assert b"credentials_refused" in guarded.log.read_bytes()


@contextmanager
def keep_pending(stack: Stack, usages: int) -> Iterator[list[Future[Answer]]]:
    """Keep usages pending, one per request, while Redis is paused."""
    with ThreadPoolExecutor(usages) as pool:
        answers = [pool.submit(send, stack.port, USAGE) for _ in range(usages)]
        api = stack.apis[0]
        wait_until(
            lambda: api.read_metric("busyapi_pending_usages") == usages,
            "the usages to be pending",
        )
        yield answers


@pytest.mark.parametrize(
    "bound",
    [{"BUSYAPI_PENDING_MAX": "20"}, {"BUSYAPI_PENDING_BYTES": str(20 * len(BODY) + 50)}],
    ids=["count", "bytes"],
)
def test_usages_over_the_pending_limit_are_refused_and_accepted_later(
    stacks: Stacks, valkey: Server, bound: dict[str, str]
) -> None:
    stack = stacks(valkey, settings=bound)
    api = stack.apis[0]
    valkey.pause()
    with keep_pending(stack, usages=20) as answers:
        refused = [send(stack.port, USAGE) for _ in range(40)]
        assert api.read_metric("busyapi_pending_usages") == 20
        # Overload keeps readiness: otherwise every process would leave the Service in turn.
        assert fetch(stack.port, "/readyz").status == 200
        valkey.resume()
        ids = {check_stored(answer.result(20)) for answer in answers}
    for answer in refused:
        check_unavailable(answer, stored="no")
    assert len({answer.headers["retry-after"] for answer in refused}) > 1, "all retry at once"
    assert api.read_metric("busyapi_refused_total", reason="Overloaded") == 40
    assert len(ids) == fetch_count(stack.port) == 20
    assert api.read_metric("busyapi_pending_usages") == 0
    # No part of the limit has leaked.
    valkey.pause()
    with keep_pending(stack, usages=20) as answers:
        check_unavailable(send(stack.port, USAGE), stored="no")
        valkey.resume()
        assert {check_stored(answer.result(20)) for answer in answers}.isdisjoint(ids)


def test_after_the_deadline_only_unsent_usages_are_reported_as_not_stored(
    stacks: Stacks, valkey: Server
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
    api = stack.apis[0]

    def post_one_sent_and_one_queued() -> tuple[Answer, Answer]:
        valkey.pause()
        with ThreadPoolExecutor(2) as pool:
            sent = pool.submit(send, stack.port, USAGE)
            wait_until(
                lambda: api.read_metric("busyapi_pending_usages") == 1, "the first to be sent"
            )
            queued = pool.submit(send, stack.port, USAGE)
            answers = sent.result(20), queued.result(20)
        valkey.resume()
        wait_until(lambda: api.read_metric("busyapi_pending_usages") == 0, "nothing to be pending")
        return answers

    sent, queued = post_one_sent_and_one_queued()
    if sent.json()["stored"] == "no":
        # The pause fell into the connection check, which runs every five seconds.
        sent, queued = post_one_sent_and_one_queued()
    check_unavailable(sent, stored="unknown")
    check_unavailable(queued, stored="no")
    wait_until(lambda: send(stack.port, USAGE).status == 201, "the next usage to be stored")
    # The one of unknown outcome was stored, the other was not.
    assert fetch_count(stack.port) == 2
