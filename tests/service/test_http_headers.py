"""Headers of every answer, HEAD, CORS, and the size limit of a request head."""

import re
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from testkit import mutants
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
from testkit.broken_build import broken_build
from testkit.http1 import Answer, fetch
from testkit.processes import Stack
from testkit.servers import Server
from tests.conftest import Stacks
from tests.service.conftest import StartApi

READ = ["/", "/openapi.json", "/livez", "/readyz", "/api/usages/count", "/api/usages/1"]
VARYING = {"date", "x-request-id"}
PAGE = "https://page.example"
OTHER = "https://other.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


def assert_current_date(answer: Answer) -> None:
    """Check that Date is the current time in the preferred form."""
    date = answer.headers["date"]
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date
    )
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 10


def test_every_answer_has_a_date(contract: Stack) -> None:
    requests = [
        render_request("POST", "/api/usages", BODY),
        render_request("POST", "/api/usages", BODY, headers=("Idempotency-Key: dated",)),
        render_request("POST", "/api/usages/batch", b"[" + BODY + b"]"),
        render_request("POST", "/api/usages", b"{}"),
        render_request("GET", "/api/usages/9007199254740992"),
        render_request("GET", "/nowhere"),
        render_request("PUT", "/"),
        *(render_request("GET", path) for path in READ),
        b"broken\r\n\r\n",
    ]
    ports = [contract.port, contract.flushers[0].port, contract.apis[0].metrics_port]
    for port in ports:
        with RawConnection(port) as device:
            for raw in requests:
                device.send(raw)
                assert_current_date(device.read_answer())


def test_a_date_counts_seconds(contract: Stack) -> None:
    seen = set()
    end = time.monotonic() + 2.5
    with RawConnection(contract.port) as device:
        while time.monotonic() < end:
            device.send(render_request("POST", "/api/usages", BODY))
            answer = device.read_answer()
            assert_current_date(answer)
            seen.add(answer.headers["date"])
            time.sleep(0.05)
    assert len(seen) in {3, 4}


@pytest.mark.parametrize("path", READ)
def test_head_is_answered_as_get_without_a_body(contract: Stack, path: str) -> None:
    check_stored(send(contract.port, BODY))
    if path == "/api/usages/1":
        contract.wait_until_archived()  # later the same answer comes from the archive
    get = fetch(contract.port, path)
    with RawConnection(contract.port) as device:
        for headers in ((), ("Connection: close",)):
            device.send(render_request("HEAD", path, headers=headers))
            head = device.read_head()
            assert head.status == get.status == 200
            assert head.headers.keys() == get.headers.keys()
            fixed = head.headers.keys() - VARYING - {"connection"}
            if path != "/api/usages/count":
                assert {n: head.headers[n] for n in fixed} == {n: get.headers[n] for n in fixed}
        assert device.is_closed_within(5), "a body follows the headers"


def test_errors_of_head_have_no_body(contract: Stack) -> None:
    for port, path, status in (
        (contract.port, "/nowhere", 404),
        (contract.port, "/api/usages", 422),
        (contract.port, "/api/usages/batch", 405),
        (contract.port, "/api/usages/0", 404),
        (contract.flushers[0].port, "/nowhere", 404),
        (contract.flushers[0].port, "/usages/999999999", 404),
    ):
        with RawConnection(port) as device:
            device.send(render_request("HEAD", path) + render_request("GET", "/livez"))
            assert device.read_head().status == status
            assert device.read_answer().body == b"loop: ok\n"


def test_head_on_the_internal_ports(contract: Stack) -> None:
    for port in (contract.flushers[0].port, contract.apis[0].metrics_port):
        with RawConnection(port) as device:
            device.send(render_request("HEAD", "/metrics", headers=("Connection: close",)))
            head = device.read_head()
            assert head.status == 200
            assert int(head.headers["content-length"]) > 1000
            assert device.is_closed_within(5)


def test_an_unknown_coding_is_415_and_names_the_supported_one(contract: Stack) -> None:
    for path in ("/api/usages", "/api/usages/batch"):
        with check_nothing_stored(contract.port):
            answer = send(contract.port, USAGE, path, content_encoding="br")
            check_problem(answer, 415)
            assert answer.headers["accept-encoding"] == "gzip"
            answer = send(contract.port, b"<a/>", path, content_type="text/xml")
            check_problem(answer, 415)
            assert "accept-encoding" not in answer.headers, "the coding was not the reason"


def test_usages_and_errors_are_not_cached(contract: Stack) -> None:
    usage = check_stored(send(contract.port, BODY))
    contract.wait_until_archived()
    for answer in (
        fetch(contract.port, f"/api/usages/{usage}"),
        fetch(contract.port, "/api/usages/9007199254740992"),
        fetch(contract.port, "/nowhere"),
        send(contract.port, b"{}"),
        fetch(contract.flushers[0].port, f"/usages/{usage}"),
        fetch(contract.flushers[0].port, "/usages/999999999"),
    ):
        assert answer.headers["cache-control"] == "no-store", answer
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_size_limit_of_a_head_is_a_setting(contract: Stack, start_api: StartApi) -> None:
    large = start_api(BUSYAPI_MAX_HEADER_BYTES="20000")
    mesh = (f"X-Forwarded-Client-Cert: {'c' * 15_000}",)
    raw = render_request("POST", "/api/usages", BODY, headers=mesh)
    with check_nothing_stored(contract.port), RawConnection(contract.port) as device:
        device.send(raw)
        check_problem(device.read_answer(), 413)
        assert device.is_closed_within(5)
    with RawConnection(large.port) as device:
        device.send(raw)
        check_stored(device.read_answer())
        device.send(render_request("POST", "/api/usages", BODY, headers=(*mesh, *mesh)))
        check_problem(device.read_answer(), 413)


class TestCors:
    """Pages of other origins: off by default, allowed for the origins in the setting."""

    def test_it_is_off_by_default(self, contract: Stack) -> None:
        check_problem(fetch(contract.port, "/api/usages", method="OPTIONS", headers=PREFLIGHT), 405)
        answer = send(contract.port, BODY, origin=PAGE)
        check_stored(answer)
        assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_a_named_origin_may_post_and_read(self, start_api: StartApi) -> None:
        port = start_api(BUSYAPI_CORS_ORIGINS=f"{PAGE}, http://localhost:8080").port
        for origin in (PAGE, "http://localhost:8080"):
            headers = {**PREFLIGHT, "Origin": origin}
            for path in ("/api/usages", "/api/usages/batch", "/api/usages/count", "/api/usages/1"):
                answer = fetch(port, path, method="OPTIONS", headers=headers)
                assert (answer.status, answer.body) == (204, b"")
                assert answer.headers["access-control-allow-origin"] == origin
                assert "POST" in answer.headers["access-control-allow-methods"]
                assert "Idempotency-Key" in answer.headers["access-control-allow-headers"]
                assert answer.headers["vary"] == "Origin"
            answer = send(port, BODY, origin=origin)
            usage = check_stored(answer)
            assert answer.headers["access-control-allow-origin"] == origin
            assert "Location" in answer.headers["access-control-expose-headers"]
            for refused in (
                send(port, b"{}", origin=origin),
                fetch(port, "/api/usages/0", headers={"Origin": origin}),
            ):
                assert refused.status in {404, 422}
                assert refused.headers["access-control-allow-origin"] == origin
            answer = fetch(port, f"/api/usages/{usage}", headers={"Origin": origin})
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == origin

    @pytest.mark.parametrize("origin", [OTHER, "null", "*", PAGE.upper(), f"{PAGE}:443"])
    def test_no_other_origin_is_allowed(self, start_api: StartApi, origin: str) -> None:
        port = start_api(BUSYAPI_CORS_ORIGINS=PAGE).port
        headers = {**PREFLIGHT, "Origin": origin}
        for answer in (
            fetch(port, "/api/usages", method="OPTIONS", headers=headers),
            send(port, BODY, origin=origin),
        ):
            assert answer.status in {201, 204}
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["vary"] == "Origin"

    def test_a_preflight_needs_no_token(self, start_api: StartApi, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens"
        tokens.write_text("write,read a\n")
        port = start_api(BUSYAPI_CORS_ORIGINS=PAGE, BUSYAPI_TOKENS_FILE=str(tokens)).port
        answer = fetch(port, "/api/usages", method="OPTIONS", headers=PREFLIGHT)
        assert answer.status == 204
        refused = send(port, BODY, origin=PAGE)
        check_problem(refused, 401)
        assert refused.headers["access-control-allow-origin"] == PAGE


def idle_connection_ends(stack: Stack, upgrade: str) -> bool:
    """Send a request for an upgrade slowly; return whether its idle connection ends."""
    with RawConnection(stack.port) as device:
        lines = ("Connection: upgrade", f"Upgrade: {upgrade}")
        device.send(render_request("POST", "/api/usages", BODY, headers=lines)[:-1])
        time.sleep(2.2)  # Sanic checks its timeouts meanwhile
        device.send(BODY[-1:])
        check_stored(device.read_answer())
        return device.is_closed_within(8)


def test_a_request_for_an_upgrade_keeps_the_idle_timeout(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings=broken_build(mutants.shorten_idle_time))
    assert idle_connection_ends(stack, "websocket")
    assert idle_connection_ends(stack, "h2c")


@pytest.mark.mutants
def test_a_server_that_upgrades_is_caught(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(
        valkey, settings=broken_build(mutants.shorten_idle_time, mutants.upgrade_to_websocket)
    )
    assert not idle_connection_ends(stack, "websocket")
