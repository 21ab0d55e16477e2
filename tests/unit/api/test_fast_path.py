"""The requests that the fast path accepts, and the conditions that disable it."""

from collections.abc import Callable
from typing import Any

import pytest
from sanic.headers import format_http1_response
from structlog.testing import capture_logs

from busyapi.api import request_head
from busyapi.api.archive_client import ArchiveClient
from busyapi.api.auth import RequestAuthorizer
from busyapi.api.context import ApiContext
from busyapi.api.fast_path import (
    ROUTE,
    FastPathProtocol,
    FastPathWrite,
)
from busyapi.api.protocol import SANIC_VERSION, make_protocol
from busyapi.api.request_head import (
    AUTHORIZATION,
    CERTIFICATE,
    cache_authorized_head,
    parse_ordinary_head,
    read_head,
    take_authorization,
)
from busyapi.api.responses import make_single_response, render_created
from busyapi.commit.pending import AdmissionControl
from busyapi.commit.pool import CommitterPool
from busyapi.errors import Overloaded
from busyapi.ids import UsageId
from busyapi.settings import Settings
from busyapi.telemetry.metrics import ApiMetrics
from busyapi.web.dates import current_http_date
from busyapi.web.protocol import DeadlineProtocol

START = b"POST /api/usages HTTP/1.1\r\n"


def make_context(
    *, fast_path: str = "on", authorizer: RequestAuthorizer | None = None
) -> ApiContext:
    return ApiContext(
        settings=Settings(fast_path=fast_path),
        committers=CommitterPool([], AdmissionControl(1, 1)),
        readers=[],
        archive=ArchiveClient("http://127.0.0.1:1", 1),
        metrics=ApiMetrics("fsync"),
        authorizer=authorizer or RequestAuthorizer(anonymous=("write",)),
    )


@pytest.mark.parametrize(
    "head",
    [
        b"Host: a\r\nContent-Length: 85",
        b"Host: [::1]:3000\r\ncontent-length:85",
        b"Host:\r\nContent-Length: 85\r\nConnection: Keep-Alive\r\nX-Anything: at all",
        b"X:\r\nContent-Length: \t85\r\nHost: a.b-c_d:80",
    ],
)
def test_an_ordinary_header_gives_its_length(head: bytes) -> None:
    assert parse_ordinary_head(START + head) == (85, 0)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Host: b",
        b"Host: a b",
        b"Host: a/b",
        b"Content-Length: 85 ",
        b"Content-Length: +85",
        b"Content-Length: 85\r\nContent-Length: 85",
        b"Content-Length: 999999999",
        b"Content-Length: 85\r\nConnection: close",
        b"Content-Length: 85\r\nConnection: keep-alive\r\nConnection: keep-alive",
        b"Content-Length: 85\r\nTransfer-Encoding: chunked",
        b"Content-Length: 85\r\nexpect: 100-continue",
        b"Content-Length: 85\r\nContent-Encoding: gzip",
        b"Content-Length: 85\r\nIdempotency-Key: a",
        b"Content-Length: 85\r\nUpgrade: websocket",
        b"Content-Length: 85\r\nno colon",
        b"Content-Length: 85\r\n folded: line",
        b"Content-Length: 85\r\nX : y",
        b"Content-Length: 85\r\nX: \xff",
        b"Content-Length: 85\r\nX: a\nb: c",
        b"Content-Length: 85\r\nX: \x00",
        b"Content-Length: 85\r\nx-request-ID: two words",
    ],
)
def test_any_other_header_is_for_sanic(head: bytes) -> None:
    assert parse_ordinary_head(START + b"Host: a\r\n" + head) is None


def test_a_header_without_a_host_is_for_sanic() -> None:
    assert parse_ordinary_head(START + b"Content-Length: 85") is None


ORDINARY = START + b"Host: a\r\nContent-Length: 85"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (b"X-Other: a", 0),
        (b"AUTHORIZATION: Bearer a", AUTHORIZATION),
        (b"X-Forwarded-Client-Cert: By=a", CERTIFICATE),
        (b"ssl-client-verify: SUCCESS", CERTIFICATE),
        (b"Ssl-Client-Subject-Dn: CN=a\r\nAuthorization: Bearer a", AUTHORIZATION | CERTIFICATE),
    ],
)
def test_kinds_of_credentials_are_part_of_a_cached_head(line: bytes, kinds: int) -> None:
    head = ORDINARY + b"\r\n" + line
    for _ in range(2):
        assert read_head(head, with_authorization=False) == ((85, kinds), None, None)


@pytest.mark.parametrize("name", [b"Authorization", b"authorization"])
@pytest.mark.parametrize("after", [b"", b"\r\nX: y"])
def test_authorization_is_taken_out_of_a_head(name: bytes, after: bytes) -> None:
    head = ORDINARY + b"\r\n" + name + b": Bearer a-b" + after
    assert take_authorization(head) == (ORDINARY + after, b"Bearer a-b")
    ordinary, authorization, _ = read_head(head, with_authorization=True)
    assert ordinary == (85, 0)
    assert authorization == b"Bearer a-b"


@pytest.mark.parametrize(
    "lines",
    [
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"Authorization: Bearer a\r\nAUTHORIZATION: Bearer b",
        b"authorization: Bearer a\r\nAuthorization: Bearer b",
    ],
)
def test_a_second_authorization_stays_in_the_head(lines: bytes) -> None:
    ordinary, authorization, _ = read_head(ORDINARY + b"\r\n" + lines, with_authorization=True)
    assert authorization is not None
    assert ordinary == (85, AUTHORIZATION)


def test_both_ids_of_a_request_are_taken_out_of_its_head() -> None:
    head = ORDINARY + b"\r\nX-Request-ID: 7\r\nAuthorization: Bearer a"
    assert read_head(head, with_authorization=True) == ((85, 0), b"Bearer a", b"7")


def test_another_release_of_sanic_disables_it_and_is_logged() -> None:
    with capture_logs() as logs:
        assert issubclass(make_protocol(make_context(), SANIC_VERSION), FastPathProtocol)
        assert not logs
        assert not issubclass(make_protocol(make_context(), "25.12.99"), FastPathProtocol)
    assert [entry["event"] for entry in logs] == ["fast_path_disabled"]


def test_the_setting_leaves_all_requests_to_sanic() -> None:
    with capture_logs() as logs:
        protocol = make_protocol(make_context(fast_path="off"))
    assert issubclass(protocol, DeadlineProtocol)
    assert not issubclass(protocol, FastPathProtocol)
    assert not logs


class Unwritable:
    """A connection on which nothing can be written."""

    aborted = False
    context = make_context()
    route_tally = context.metrics.requests.route(ROUTE)

    def send_response(self, message: bytes, now: float, *, close: bool) -> None:
        raise RuntimeError(message)

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    "finish",
    [lambda write: write.complete(1), lambda write: write.fail(Overloaded())],
)
def test_a_response_that_cannot_be_written_ends_only_its_connection(
    finish: Callable[[FastPathWrite], None],
) -> None:
    connection: Any = Unwritable()
    write = FastPathWrite(connection, b"{}", b"7-1")
    with capture_logs() as logs:
        finish(write)
    assert connection.aborted
    assert not write.is_waiting
    assert [entry for entry in logs if entry["event"] != "write_rejected"] == [
        {
            "event": "unexpected_error",
            "log_level": "error",
            "error": "RuntimeError",
            "where": "fast path",
            "request_id": "7-1",
        }
    ]


def test_a_complete_head_is_cached_with_its_authorization_but_not_with_an_id() -> None:
    head = ORDINARY + b"\r\nX: unique-7\r\nAuthorization: Bearer a"
    first = read_head(head, with_authorization=True)
    assert tuple(first) == ((85, 0), b"Bearer a", None)
    assert head not in request_head.AUTHORIZED_HEADS, "nothing is verified yet"
    cache_authorized_head(head, first)
    assert read_head(bytes(bytearray(head)), with_authorization=True) is first
    other = read_head(head[:-1] + b"b", with_authorization=True)
    assert other == ((85, 0), b"Bearer b", None)
    for number in (b"1", b"2"):
        with_id = head + b"\r\nX-Request-ID: " + number
        parts = read_head(with_id, with_authorization=True)
        assert tuple(parts) == ((85, 0), b"Bearer a", number)
        cache_authorized_head(with_id, parts)
        assert with_id not in request_head.AUTHORIZED_HEADS
    assert len(request_head.AUTHORIZED_HEADS) <= request_head.CACHE_SIZE


def test_the_caches_of_heads_are_bounded() -> None:
    for number in range(3 * request_head.CACHE_SIZE):
        head = ORDINARY + b"\r\nX: %d\r\nAuthorization: Bearer %d" % (number, number)
        cache_authorized_head(head, read_head(head, with_authorization=True))
        for cache in (request_head.HEAD_CACHE, request_head.AUTHORIZED_HEADS):
            assert len(cache) <= request_head.CACHE_SIZE


LIMITS = {"ratelimit-policy": '"a";q=1;w=2', "ratelimit": '"a";r=0;t=1'}


@pytest.mark.parametrize("limits", [{}, LIMITS])
def test_both_paths_render_the_same_201(limits: dict[str, str]) -> None:
    response = make_single_response(UsageId(12), limits)
    response.headers |= {
        "x-request-id": "request",
        "date": current_http_date(),
        "content-length": len(response.body or b""),  # Sanic sets a number
        "connection": "keep-alive",
    }
    slow = format_http1_response(201, response.processed_headers) + (response.body or b"")
    lines = b"".join(f"\r\n{name}: {value}".encode() for name, value in limits.items())
    assert render_created(UsageId(12), b"request", lines, close=False) == slow
