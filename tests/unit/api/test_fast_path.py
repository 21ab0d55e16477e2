"""The requests that the fast path accepts, and the conditions that disable it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sanic.headers import format_http1_response
from structlog.testing import capture_logs

from busyapi.api import request_head
from busyapi.api.archive_client import ArchiveClient
from busyapi.api.auth import RequestAuthorizer
from busyapi.api.context import ApiContext
from busyapi.api.fast_path import ROUTE, FastPathProtocol
from busyapi.api.fast_path_write import FastPathWrite
from busyapi.api.protocol import SANIC_VERSION, make_protocol
from busyapi.api.request_head import (
    AUTHORIZATION,
    CERTIFICATE,
    MAX_PATTERNS,
    HeadParts,
    HeadReader,
)
from busyapi.api.responses import make_single_response, render_created
from busyapi.api.usage_finder import UsageFinder
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
        finder=UsageFinder(lambda _: pytest.fail("a lookup"), 1),
        archive=ArchiveClient("http://127.0.0.1:1", 1),
        metrics=ApiMetrics("fsync"),
        authorizer=authorizer or RequestAuthorizer(anonymous=("write",)),
    )


def train(head: bytes, *, reads_authorization: bool = True) -> HeadReader:
    """Return a reader that knows the pattern of a head."""
    reader = HeadReader(reads_authorization=reads_authorization)
    if parts := reader.read(head):
        reader.learn(head, parts)
        assert reader.read(head) == parts
        assert reader.unknown_head is None
    return reader


def read(head: bytes, *, reads_authorization: bool = True) -> HeadParts | None:
    """Return the parts of a head, which must not depend on whether its pattern is known."""
    parts = HeadReader(reads_authorization=reads_authorization).read(head)
    for known in (head, b"\r\n" + head):
        assert train(known, reads_authorization=reads_authorization).read(head) == parts
    return parts


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
    assert read(START + head) == HeadParts(85, 0)


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
        b"Content-Length: 85\r\nIdempotency-Key: a b",
        b"Content-Length: 85\r\nIdempotency-Key: a\r\nidempotency-key: a",
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
    assert read(START + b"Host: a\r\n" + head) is None


BATCH_HEAD = b"POST /api/usages/batch HTTP/1.1\r\nHost: a\r\nContent-Length: 85"


@pytest.mark.parametrize(
    ("line", "is_ordinary"),
    [
        (b"", True),
        (b"\r\ncontent-type: application/json", True),
        (b"\r\nContent-Type: application/x-ndjson", False),
        (b"\r\nContent-Type: application/json\r\ncontent-type:Application/X-NDJSON", False),
    ],
)
def test_the_head_of_a_batch_has_a_type(line: bytes, *, is_ordinary: bool) -> None:
    assert read(BATCH_HEAD + line) == (HeadParts(85, 0, is_batch=True) if is_ordinary else None)
    reader = train(BATCH_HEAD + b"\r\nContent-Type: application/json")
    assert (reader.read(BATCH_HEAD + line) is not None) == is_ordinary


def test_a_header_without_a_host_is_for_sanic() -> None:
    assert read(START + b"Content-Length: 85") is None


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
def test_kinds_of_credentials_are_part_of_a_head(line: bytes, kinds: int) -> None:
    head = ORDINARY + b"\r\n" + line
    assert read(head, reads_authorization=False) == HeadParts(85, kinds)


@pytest.mark.parametrize("name", [b"Authorization", b"authorization"])
@pytest.mark.parametrize("after", [b"", b"\r\nX: y"])
def test_authorization_is_taken_out_of_a_head(name: bytes, after: bytes) -> None:
    head = ORDINARY + b"\r\n" + name + b": Bearer a-b" + after
    assert read(head) == HeadParts(85, 0, b"Bearer a-b")


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (b"Authorization: Bearer a\r\nAuthorization: Bearer b", b"Bearer a"),
        (b"Authorization: Bearer a\r\nAUTHORIZATION: Bearer b", b"Bearer a"),
        (b"AUTHORIZATION: Bearer a\r\nauthorization: Bearer b", b"Bearer b"),
        (b"Authorization:Bearer a\r\nX: y", None),
    ],
)
def test_another_authorization_is_a_kind_of_credential(lines: bytes, first: bytes | None) -> None:
    assert read(ORDINARY + b"\r\n" + lines) == HeadParts(85, AUTHORIZATION, first)


def test_a_request_id_is_taken_out_of_a_head() -> None:
    head = ORDINARY + b"\r\nX-Request-ID: 7\r\nAuthorization: Bearer a"
    assert read(head) == HeadParts(85, 0, b"Bearer a", b"7")
    assert read(head + b"\r\nx-request-id: 7") is None


LINES = [
    b"Host: a.b:80",
    b"host: c",
    b"Content-Length: 85",
    b"content-length:7",
    b"Connection: keep-alive",
    b"connection:  Keep-Alive",
    b"Connection: close",
    b"Authorization: Bearer a",
    b"authorization:  Bearer b ",
    b"AUTHORIZATION: x",
    b"X-Request-ID: r-1",
    b"x-request-id:\ttwo words",
    b"X-Forwarded-For: 10.0.0.1, 10.0.0.2",
    b"X-Forwarded-Client-Cert: By=a",
    b"Traceparent: 00-4bf92f3577b34da6-00",
    b"X.[a](b)*|?: ^$",
    b"X:",
    b"Content-Type: application/json",
    b"content-type: application/x-ndjson",
    b"Expect: 100-continue",
    b"Idempotency-Key: k",
    b"idempotency-key:\tk ",
]
edits = st.tuples(st.integers(0, 400), st.integers(0, 2), st.binary(max_size=2))


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=8),
    edits=st.lists(
        edits
        | st.tuples(
            st.integers(0, 400),
            st.just(1),
            st.sampled_from(
                [b"0", b"9", b" ", b"\t", b"\r", b"\n", b"\r\n", b":", b"\x7f", b"\xff", b"a", b""]
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    reads_authorization=st.booleans(),
    is_batch=st.booleans(),
)
@settings(max_examples=1500)
def test_a_known_pattern_changes_no_result(
    lines: list[bytes],
    edits: list[tuple[int, int, bytes]],
    reads_authorization: bool,  # noqa: FBT001
    is_batch: bool,  # noqa: FBT001
) -> None:
    start = BATCH_HEAD.partition(b"\r\n")[0] if is_batch else START[:-2]
    head = b"\r\n".join([start, *LINES[:3:2], *lines])
    reader = train(head, reads_authorization=reads_authorization)
    for place, length, text in edits:
        at = place % len(head)
        changed = head[:at] + text + head[at + length :]
        fresh = HeadReader(reads_authorization=reads_authorization)
        assert reader.read(changed) == fresh.read(changed)


GOOD = START + b"\r\n".join(
    [
        b"Host: a",
        b"X-Request-ID: %b",
        b"Idempotency-Key: %b",
        b"Content-Length: %b",
        b"Connection: keep-alive",
        b"Authorization: %b",
        b"Traceparent: %b",
    ]
)
VALUES = (b"r", b"k", b"85", b"Bearer a", b"0")
ODD = (
    b"",
    b" ",
    b"a b",
    b"a ",
    b"\ta",
    b"\x7f",
    b"\xff",
    b"\x0b",
    b"a\rb",
    b"a\nb: c",
    b"a\r\nb: c",
)


@pytest.mark.parametrize("place", range(len(VALUES)))
@pytest.mark.parametrize("reads_authorization", [True, False])
def test_a_pattern_takes_the_values_that_the_parser_takes(
    place: int, *, reads_authorization: bool
) -> None:
    reader = train(GOOD % VALUES, reads_authorization=reads_authorization)
    some_are_accepted = some_are_not = False
    for value in (*ODD, b"x" * 128, b"x" * 129, b"1" * 8, b"1" * 9, b"0", b"+1"):
        values = list(VALUES)
        values[place] = value
        head = GOOD % tuple(values)
        parts = HeadReader(reads_authorization=reads_authorization).read(head)
        assert reader.read(head) == parts, value
        some_are_accepted |= parts is not None
        some_are_not |= parts is None
    assert some_are_accepted
    assert some_are_not


SPELLINGS = (
    b"Authorization: Bearer a",
    b"Authorization:x",
    b"authorization: x",
    b"AUTHORIZATION: x",
)


@pytest.mark.parametrize("known", SPELLINGS)
@pytest.mark.parametrize("other", SPELLINGS)
@pytest.mark.parametrize("second", [b"", *SPELLINGS])
def test_a_pattern_keeps_the_spelling_of_authorization(
    known: bytes, other: bytes, second: bytes
) -> None:
    after = b"\r\n" + second if second else b""
    for reads_authorization in (True, False):
        fresh = HeadReader(reads_authorization=reads_authorization)
        reader = train(ORDINARY + b"\r\n" + known + after, reads_authorization=reads_authorization)
        head = ORDINARY + b"\r\n" + other + after
        assert reader.read(head) == fresh.read(head)


def test_heads_of_one_kind_share_a_pattern_and_patterns_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_head, "_SECONDS_PER_PATTERN", 0)
    reader = train(GOOD % VALUES)
    for number in range(100):
        values = (b"%d" % number,) * 5
        assert reader.read(GOOD % values) == HeadParts(number, 0, *values[:3])
        assert reader.unknown_head is None
    for number in range(3 * MAX_PATTERNS):
        head = ORDINARY + b"\r\nX-%d: a" % number
        parts = reader.read(head)
        assert parts == HeadParts(85, 0)
        assert reader.unknown_head is head
        reader.learn(head, parts)
        assert len(reader._patterns) <= MAX_PATTERNS
        assert not re._cache  # type: ignore[attr-defined]


def test_a_client_cannot_make_a_process_compile_pattern_after_pattern() -> None:
    reader = HeadReader(reads_authorization=True)
    for number in range(50):
        head = ORDINARY + b"\r\nX-%d: a" % number
        parts = reader.read(head)
        assert parts == HeadParts(85, 0)
        reader.learn(head, parts)
    assert len(reader._patterns) == 1
    for more in (b"\r\nX: y" * 100, b"\r\n" + b"X" * 1600 + b": y"):
        reader = HeadReader(reads_authorization=True)
        parts = reader.read(ORDINARY + more)
        assert parts == HeadParts(85, 0)
        reader.learn(ORDINARY + more, parts)
        assert not reader._patterns


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
    context.committers.make_id = lambda *_: UsageId(1)  # type: ignore[method-assign]
    route_tally = context.metrics.requests.fast_path[ROUTE]

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


LIMITS = {"ratelimit-policy": '"a";q=1;w=2', "ratelimit": '"a";r=0;t=1'}


@pytest.mark.parametrize("limits", [{}, LIMITS])
@pytest.mark.parametrize("replayed", [False, True])
def test_both_paths_render_the_same_201(limits: dict[str, str], *, replayed: bool) -> None:
    response = make_single_response(UsageId(12), limits, replayed=replayed)
    response.headers |= {
        "x-request-id": "request",
        "date": current_http_date(),
        "content-length": len(response.body or b""),  # Sanic sets a number
        "connection": "keep-alive",
    }
    slow = format_http1_response(201, response.processed_headers) + (response.body or b"")
    lines = b"".join(f"\r\n{name}: {value}".encode() for name, value in limits.items())
    fast = render_created(UsageId(12), b"request", lines, replayed=replayed, close=False)
    assert fast == slow
    assert (b"\r\nidempotency-replayed: true\r\n" in fast) == replayed
