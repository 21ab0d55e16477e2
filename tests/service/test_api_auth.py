"""Who may ask for what and how often, and how much one process takes in."""

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
from tests.service.conftest import Apis

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
def guarded(beside: Apis, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """An API process that asks for a token."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS)
    return beside(BUSYAPI_TOKENS_FILE=str(path))


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
            for each in (wrote, batch, read):
                if each.status == 403:
                    check_problem(each, 403)

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
    def test_no_known_token_is_401(self, contract: Stack, guarded: Api, credential: str) -> None:
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

    def test_what_holds_no_usage_needs_no_token(self, guarded: Api) -> None:
        for path in ("/", "/openapi.json", "/livez", "/readyz", "/api/usages/count"):
            assert fetch(guarded.port, path).status == 200

    def test_a_usage_is_judged_only_after_its_token(self, guarded: Api) -> None:
        check_problem(send(guarded.port, b"no json"), 401)

    def test_a_bad_token_file_is_exit_code_2_and_names_the_line_not_the_token(
        self, contract: Stack, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text("write good-secret\n\nadmin other-secret\n")
        environment = {**(contract.apis[0].environment or {}), "BUSYAPI_TOKENS_FILE": str(path)}
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
    """With a rate, each token or address has its own."""

    def test_over_the_rate_is_429_until_retry_after(self, contract: Stack, beside: Apis) -> None:
        # One in 2.5 seconds: rounded down, Retry-After would be too early.
        limited = beside(BUSYAPI_RATE_LIMIT="0.4")
        check_stored(send(limited.port, USAGE))
        with check_nothing_stored(contract.port):
            answer = send(limited.port, USAGE)
            check_problem(answer, 429)
            check_problem(fetch(limited.port, "/api/usages/1"), 429)
        time.sleep(int(answer.headers["retry-after"]))
        check_stored(send(limited.port, USAGE))

    def test_a_burst_of_two_seconds_worth_is_let_through(self, beside: Apis) -> None:
        limited = beside(BUSYAPI_RATE_LIMIT="5")
        statuses = [send(limited.port, USAGE).status for _ in range(60)]
        assert statuses[:10] == [201] * 10
        assert 429 in statuses

    def test_each_token_has_a_rate_of_its_own(self, beside: Apis, tmp_path: Path) -> None:
        path = tmp_path / "tokens"
        path.write_text("write first\nwrite second\n")
        limited = beside(BUSYAPI_TOKENS_FILE=str(path), BUSYAPI_RATE_LIMIT="0.01")

        def post(token: str) -> int:
            return send(limited.port, USAGE, authorization=f"Bearer {token}").status

        assert [post("first"), post("first"), post("second"), post("second")] == [201, 429] * 2
        assert post("unknown") == 401

    def test_a_batch_counts_its_usages(self, contract: Stack, beside: Apis) -> None:
        # A burst of 10; a token of it is back after five seconds.
        limited = beside(BUSYAPI_RATE_LIMIT="5")

        def post(usages: int) -> Answer:
            return send(limited.port, [USAGE] * usages, "/api/usages/batch")

        assert post(8).status == 201
        with check_nothing_stored(contract.port):
            answer = post(9)
            check_problem(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1

    def test_a_batch_larger_than_the_burst_is_taken_into_debt(
        self, contract: Stack, beside: Apis
    ) -> None:
        limited = beside(BUSYAPI_RATE_LIMIT="1")
        assert send(limited.port, [USAGE] * 500, "/api/usages/batch").status == 201
        with check_nothing_stored(contract.port):
            for body, path in (([USAGE] * 500, "/api/usages/batch"), (USAGE, "/api/usages")):
                answer = send(limited.port, body, path)
                check_problem(answer, 429)
                assert 490 <= int(answer.headers["retry-after"]) <= 502

    def test_client_whose_batch_was_refused_is_held_to_its_retry_after_unread(
        self, contract: Stack, beside: Apis
    ) -> None:
        # A burst of 4, of which a token is back after half a second.
        limited = beside(BUSYAPI_RATE_LIMIT="2")
        assert [send(limited.port, USAGE).status for _ in range(3)] == [201] * 3
        with check_nothing_stored(contract.port):
            answer = send(limited.port, [USAGE] * 5_000, BATCH)
            check_problem(answer, 429)
            assert answer.headers["retry-after"] == "2"
            refused = time.monotonic()
            time.sleep(1)
            # The bucket is not empty. A batch is refused all the same, before its body is sent.
            with RawConnection(limited.port) as device:
                device.send(render_request("POST", BATCH, headers=("Content-Length: 4000000",)))
                check_problem(device.read_answer(), 429)
        check_stored(send(limited.port, USAGE))
        time.sleep(max(0.0, refused + 2.5 - time.monotonic()))
        assert send(limited.port, [USAGE], BATCH).status == 201

    def test_wrong_tokens_have_a_bucket_of_their_own_and_good_ones_pass(
        self, beside: Apis, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text("write good-token\n")
        guarded = beside(BUSYAPI_TOKENS_FILE=str(path))
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
def waiting(stack: Stack, usages: int) -> Iterator[list[Future[Answer]]]:
    """Have usages pending, one a request, while Redis stands still."""
    with ThreadPoolExecutor(usages) as pool:
        answers = [pool.submit(send, stack.port, USAGE) for _ in range(usages)]
        pending = stack.apis[0]
        wait_until(
            lambda: pending.read_metric("busyapi_pending_usages") == usages,
            "the usages to be pending",
        )
        yield answers


@pytest.mark.parametrize(
    "bound",
    [{"BUSYAPI_PENDING_MAX": "20"}, {"BUSYAPI_PENDING_BYTES": str(20 * len(BODY) + 50)}],
    ids=["count", "bytes"],
)
def test_more_than_may_be_pending_is_refused_and_taken_later(
    stacks: Stacks, valkey: Server, bound: dict[str, str]
) -> None:
    stack = stacks(valkey, settings=bound)
    api = stack.apis[0]
    valkey.pause()
    with waiting(stack, usages=20) as answers:
        refused = [send(stack.port, USAGE) for _ in range(40)]
        assert api.read_metric("busyapi_pending_usages") == 20
        # Overload is no reason to leave the Service: every process would, one after the other.
        assert fetch(stack.port, "/readyz").status == 200
        valkey.resume()
        ids = {check_stored(each.result(20)) for each in answers}
    for each in refused:
        check_unavailable(each, stored="no")
    assert len({each.headers["retry-after"] for each in refused}) > 1, "they come back together"
    assert api.read_metric("busyapi_refused_total", reason="Overloaded") == 40
    assert len(ids) == fetch_count(stack.port) == 20
    assert api.read_metric("busyapi_pending_usages") == 0
    # None of the bound has leaked.
    valkey.pause()
    with waiting(stack, usages=20) as answers:
        check_unavailable(send(stack.port, USAGE), stored="no")
        valkey.resume()
        assert {check_stored(each.result(20)) for each in answers}.isdisjoint(ids)


def test_after_the_deadline_only_what_was_never_sent_is_called_not_stored(
    stacks: Stacks, valkey: Server
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
    api = stack.apis[0]

    def one_sent_and_one_behind() -> tuple[Answer, Answer]:
        valkey.pause()
        with ThreadPoolExecutor(2) as pool:
            sent = pool.submit(send, stack.port, USAGE)
            wait_until(
                lambda: api.read_metric("busyapi_pending_usages") == 1, "the first to be sent"
            )
            behind = pool.submit(send, stack.port, USAGE)
            answers = sent.result(20), behind.result(20)
        valkey.resume()
        wait_until(lambda: api.read_metric("busyapi_pending_usages") == 0, "nothing to be pending")
        return answers

    sent, behind = one_sent_and_one_behind()
    if sent.json()["stored"] == "no":
        # The pause fell into the check of the connection that is made every five seconds.
        sent, behind = one_sent_and_one_behind()
    check_unavailable(sent, stored="unknown")
    check_unavailable(behind, stored="no")
    wait_until(lambda: send(stack.port, USAGE).status == 201, "the next to be taken")
    # The one of unknown outcome was stored, the other was not.
    assert fetch_count(stack.port) == 2
