"""Which requests take the fast path: those of devices, and those that proxies pass on.

The metric of the fast path is compared with the number of posts.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from busyapi.api.fast_path import START_SECONDS
from testkit.api_client import BODY, RawConnection, check_stored, fetch_count, render_request
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.service.test_fast_path import write_tokens

POSTS = 40
DEADLINE_SECONDS = 2.0
AUTHORIZATION = "Authorization: Bearer any"


def as_nginx(number: int) -> tuple[str, ...]:
    return (
        "Connection: keep-alive",
        f"X-Request-ID: {number:032x}",
        f"X-Real-IP: 10.42.0.{number}",
        f"X-Forwarded-For: 192.0.2.{number}, 10.42.0.{number}",
        "X-Forwarded-Host: busyapi.example.com",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Scheme: https",
        "X-Scheme: https",
        AUTHORIZATION,
        "accept: */*",
        "user-agent: okhttp/4.12.0",
        "content-type: application/json; charset=utf-8",
    )


def as_haproxy(number: int) -> tuple[str, ...]:
    return (
        f"user-agent: inhaler/{number}",
        "accept: */*",
        AUTHORIZATION.replace("A", "a", 1),
        f"x-forwarded-for: 2001:db8::{number:x}",
        "x-forwarded-proto: https",
        f"traceparent: 00-{number:032x}-{number:016x}-01",
    )


def as_traefik(number: int) -> tuple[str, ...]:
    return (
        "User-Agent: Dart/3.4 (dart:io)",
        AUTHORIZATION,
        "Content-Type: application/json",
        "Accept-Encoding: gzip",
        f"X-Forwarded-For: 192.0.2.{number}",
        "X-Forwarded-Host: busyapi.example.com",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Server: traefik-5d78f4b7c9-x2x7k",
        f"X-Real-Ip: 192.0.2.{number}",
    )


def as_envoy(number: int) -> tuple[str, ...]:
    return (
        "accept: */*",
        "content-type: application/json",
        AUTHORIZATION.replace("A", "a", 1),
        f"x-forwarded-for: 192.0.2.{number}",
        "x-forwarded-proto: https",
        "x-envoy-external-address: 192.0.2.1",
        f"x-request-id: 6f1d2c3b-4a59-4687-9695-{number:012x}",
        "x-envoy-expected-rq-timeout-ms: 15000",
    )


def as_device(number: int) -> tuple[str, ...]:
    del number
    return (AUTHORIZATION,)


SENDERS: tuple[Callable[[int], tuple[str, ...]], ...] = (
    as_device,
    as_nginx,
    as_haproxy,
    as_traefik,
    as_envoy,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that requires a token to write."""
    folder = tmp_path_factory.mktemp("share")
    tokens = folder / "tokens"
    write_tokens(tokens, ["any"])
    settings = {
        "BUSYAPI_TOKENS_FILE": str(tokens),
        "BUSYAPI_ANONYMOUS": "read",
        "BUSYAPI_REQUEST_DEADLINE": str(DEADLINE_SECONDS),
    }
    with ExitStack() as running:
        server = running.enter_context(Server(folder / "valkey"))
        stack = running.enter_context(Stack(folder / "stack", server, settings=settings))
        learn_token(stack.port)
        yield stack


def learn_token(port: int) -> None:
    """Post once: the route verifies the token, and from then on it is known."""
    with RawConnection(port) as device:
        device.send(post())
        check_stored(device.read_answer())


def post(headers: tuple[str, ...] = (AUTHORIZATION,), body: bytes = BODY) -> bytes:
    return render_request("POST", "/api/usages", body, headers=headers)


def count_fast(stack: Stack, route: str = "/api/usages") -> int:
    return int(stack.apis[0].read_metric("busyapi_fast_path_requests_total", route=route))


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("cut", [0, len(BODY), len(BODY) - 1, 1])
def test_differing_headers_and_bodies_in_a_packet_of_their_own_take_it(
    stack: Stack, sender: Callable[[int], tuple[str, ...]], cut: int
) -> None:
    """`cut`: the number of bytes in the second packet."""
    before, stored = count_fast(stack), fetch_count(stack.port)
    with RawConnection(stack.port) as device:
        for number in range(1, POSTS + 1):
            request = post(sender(number))
            device.send(request[: len(request) - cut])
            if cut:
                time.sleep(0.002)  # or both are often read at once
                device.send(request[len(request) - cut :])
            check_stored(device.read_answer())
    assert fetch_count(stack.port) - stored == POSTS
    # On a busy machine a few second packets may come late.
    assert count_fast(stack) - before >= POSTS * (0.9 if cut else 1)


def test_a_body_that_follows_late_is_read_by_the_route(stack: Stack) -> None:
    before = count_fast(stack)
    with RawConnection(stack.port) as device:
        request = post()
        device.send(request[:-5])
        time.sleep(2 * START_SECONDS)
        device.send(request[-5:])
        check_stored(device.read_answer())
        assert count_fast(stack) == before
        device.send(post())
        check_stored(device.read_answer())
    assert count_fast(stack) == before + 1


def test_a_body_that_never_follows_gets_408(stack: Stack) -> None:
    with RawConnection(stack.port) as device:
        device.send(post()[:-5])
        assert device.read_answer().status == 408
        assert device.is_closed_within(2)


@pytest.mark.parametrize("first", [0, len(BODY) - 1])
def test_a_body_that_drips_gets_408(stack: Stack, first: int) -> None:
    """Each byte comes before the time for the rest has passed."""
    padding = b" " * 200
    request = post(body=BODY[:-1] + padding + b"}")
    at = len(request) - len(BODY) - len(padding) + first
    with RawConnection(stack.port) as device:
        device.send(request[:at])
        began = time.monotonic()
        device.drip(request[at:], START_SECONDS / 2)
        assert device.read_answer().status == 408
        assert time.monotonic() - began < 3 * DEADLINE_SECONDS


def test_a_stranger_does_not_take_others_off_it(stack: Stack) -> None:
    for authorization in ("Authorization:Bearer any", "Authorization: Bearer unknown"):
        time.sleep(1.1)  # a process learns one kind of header a second
        with RawConnection(stack.port) as stranger:
            stranger.send(post((authorization, "X-Other: 1")))
            stranger.read_answer()
    before = count_fast(stack)
    with RawConnection(stack.port) as device:
        for number in range(20):
            device.send(post((AUTHORIZATION, f"X-Other: {number}")))
            check_stored(device.read_answer())
    assert count_fast(stack) - before == 20


@pytest.fixture
def start_api(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an API process on the same partition, with other settings."""
    with ExitStack() as running:

        def start(**settings: str) -> Api:
            environment = {**(stack.apis[0].environment or {}), **settings}
            api = running.enter_context(Api(tmp_path, "api", reserve_port(), environment))
            learn_token(api.port)
            return api

        yield start


@pytest.mark.parametrize("size", [500, 1100, 3000])
def test_a_header_above_the_limit_is_refused(start_api: Callable[..., Api], size: int) -> None:
    api = start_api(BUSYAPI_MAX_HEADER_BYTES="1024")
    with RawConnection(api.port) as device:
        device.send(post((AUTHORIZATION, "X-Long: " + "x" * size)))
        assert device.read_answer().status == (201 if size == 500 else 413)


def test_a_connection_is_not_idle_while_its_body_is_awaited(start_api: Callable[..., Api]) -> None:
    api = start_api(BUSYAPI_MAX_CONNECTIONS="8")
    with RawConnection(api.port) as device, ExitStack() as others:
        request = post()
        device.send(request[:-5])
        wait_until(lambda: not device.count_unread(), "the start to be read", every=0.002)
        for _ in range(16):
            others.enter_context(RawConnection(api.port))
        time.sleep(START_SECONDS / 5)  # they are accepted
        device.send(request[-5:])
        check_stored(device.read_answer())


def test_a_body_that_follows_during_the_drain_is_stored(start_api: Callable[..., Api]) -> None:
    api = start_api(BUSYAPI_DRAIN_DELAY="0")
    with RawConnection(api.port) as device:
        request = post()
        device.send(request[:-5])
        time.sleep(START_SECONDS / 5)  # it is read
        api.terminate()
        time.sleep(START_SECONDS / 5)  # the drain begins
        device.send(request[-5:])
        answer = device.read_answer()
        check_stored(answer)
        assert answer.headers["connection"] == "close"


def test_a_body_that_ends_early_is_refused(stack: Stack) -> None:
    stored = fetch_count(stack.port)
    with RawConnection(stack.port) as device:
        device.send(post()[:-5])
        device.finish_sending()
        assert device.is_closed_within(2 * DEADLINE_SECONDS)
    assert fetch_count(stack.port) == stored


@pytest.mark.parametrize(
    "request_bytes",
    [
        post((AUTHORIZATION, "Idempotency-Key: two words")),
        post(("Authorization: Bearer unknown",)),
        post(body=b"[]"),
        post(body=BODY[:-1]),
        post(body=BODY[:-1] + b',"x":"' + b"y" * 9000 + b'"}')[:-20],
    ],
)
def test_other_requests_take_the_route(stack: Stack, request_bytes: bytes) -> None:
    before = count_fast(stack)
    with RawConnection(stack.port) as device:
        device.send(request_bytes)
        if b"yyy" in request_bytes:  # too long to be kept
            wait_until(lambda: not device.count_unread(), "the first packet to be read")
            device.send(b"y" * 18 + b'"}')
        device.read_answer()
    assert count_fast(stack) == before


BATCH = "/api/usages/batch"


def post_batch(body: bytes, *headers: str) -> bytes:
    return render_request("POST", BATCH, body, headers=(AUTHORIZATION, *headers))


def make_batch(count: int, usage: bytes = BODY) -> bytes:
    return b"[" + b",".join([usage] * count) + b"]"


@pytest.mark.parametrize("count", [1, 7, 200])
def test_short_batches_of_flat_usages_take_it(stack: Stack, count: int) -> None:
    before, stored = count_fast(stack, BATCH), fetch_count(stack.port)
    with RawConnection(stack.port) as device:
        for number in range(1, 11):
            device.send(post_batch(make_batch(count), f"X-Forwarded-For: 192.0.2.{number}"))
            answer = device.read_answer()
            assert answer.status == 201, answer
            ids = answer.json()["ids"]
            assert ids == list(range(ids[0], ids[0] + count))
    assert fetch_count(stack.port) - stored == 10 * count
    assert count_fast(stack, BATCH) - before == 10


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post_batch(make_batch(400)), 201),
        (post_batch(make_batch(2, BODY[:-1] + b',"x":[1]}')), 201),
        (post_batch(make_batch(2, BODY[:-1] + b',"x":1e300}')), 201),
        (post_batch(make_batch(2), "Idempotency-Key: k"), 201),
        (post_batch(BODY, "Content-Type: application/x-ndjson"), 201),
        (post_batch(make_batch(2), "Content-Type: application/x-ndjson"), 422),
        (post_batch(b"[]"), 422),
        (post_batch(make_batch(2)[:-1]), 400),
        (post_batch(make_batch(2, b"{}")), 422),
    ],
)
def test_other_batches_take_the_route(stack: Stack, request_bytes: bytes, status: int) -> None:
    before = count_fast(stack, BATCH)
    with RawConnection(stack.port) as device:
        device.send(request_bytes)
        assert device.read_answer().status == status
    assert count_fast(stack, BATCH) == before


@pytest.mark.parametrize("switch", ["on", "off"])
@pytest.mark.parametrize(
    ("settings", "taken", "refused", "status"),
    [
        ({"BUSYAPI_MAX_BATCH_ITEMS": "3"}, make_batch(3), make_batch(4), 422),
        (
            {"BUSYAPI_MAX_BATCH_BYTES": str(2 * len(BODY) + 3)},
            make_batch(2),
            make_batch(2) + b"  ",
            413,
        ),
        (
            {"BUSYAPI_MAX_BODY_BYTES": str(3 * len(BODY))},
            make_batch(3),
            make_batch(1, BODY[:-1] + b" " * 2 * len(BODY) + b" }"),
            422,
        ),
    ],
)
def test_both_ways_have_the_same_limits(
    start_api: Callable[..., Api],
    settings: dict[str, str],
    *,
    taken: bytes,
    refused: bytes,
    status: int,
    switch: str,
) -> None:
    api = start_api(**settings, BUSYAPI_FAST_PATH=switch)
    for body, expected in ((taken, 201), (refused, status)):
        with RawConnection(api.port) as device:
            device.send(post_batch(body))
            assert device.read_answer().status == expected
    count = int(api.read_metric("busyapi_fast_path_requests_total", route=BATCH))
    assert count == (1 if switch == "on" else 0)


def test_a_lenient_batch_of_many_tiny_usages_takes_the_route(start_api: Callable[..., Api]) -> None:
    api = start_api(BUSYAPI_VALIDATION="lenient")
    with RawConnection(api.port) as device:
        device.send(post_batch(make_batch(500, b'{"a":1}')))
        assert device.read_answer().status == 201
    assert not api.read_metric("busyapi_fast_path_requests_total", route=BATCH)
