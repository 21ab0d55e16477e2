"""A head means the same to every recipient, or is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from busyapi.web.head import MalformedHead, is_authority, may_be_head, parse_head
from testkit.framing_cases import ACCEPTED, REFUSED_HEADS

LINES = b"\r\nHost: a"


def test_a_head_is_split_and_its_names_are_in_lower_case() -> None:
    head = parse_head(b"POST /a?b HTTP/1.1\r\nHost: a\r\nX-Any:\t b \r\nx:\r\nCONTENT-LENGTH: 5")
    assert head.method == "POST"
    assert head.target == b"/a?b"
    assert head.version == "1.1"
    assert head.headers == [("host", "a"), ("x-any", "b"), ("x", ""), ("content-length", "5")]
    assert (head.keep_alive, head.chunked, head.length, head.expect) == (True, False, 5, None)


@pytest.mark.parametrize("raw", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_ambiguous_heads_are_refused(raw: bytes) -> None:
    head, _, _ = raw.partition(b"\r\n\r\n")
    with pytest.raises(MalformedHead):
        parse_head(head)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_legal_heads_are_accepted(raw: bytes) -> None:
    head, _, _ = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")
    parsed_head = parse_head(head)
    assert parsed_head.chunked or parsed_head.length


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "Upgrade, HTTP2-Settings", True),
        ("1.1", "closer", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "te, keep-alive", True),
        ("1.0", "\u212aeep-alive", False),
        ("1.0", "keep-alive\r\nConnection: close", False),
    ],
)
def test_the_version_and_its_options_keep_a_connection(
    version: str, connection: str | None, *, keep_alive: bool
) -> None:
    line = "" if connection is None else f"\r\nConnection: {connection}"
    assert parse_head(f"GET / HTTP/{version}\r\nHost: a{line}".encode()).keep_alive == keep_alive


def test_a_length_beyond_all_limits_costs_nothing() -> None:
    head = parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 8000)
    assert head.length == 10**18


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@given(target=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
@example(target="//a:b@c:d")
@example(target="http://a")
@example(target="http://a#?")
@example(target="a://b//c:d")
@example(target="*")
def test_every_accepted_target_is_a_path(method: str, target: str) -> None:
    try:
        head = parse_head(f"{method} {target} HTTP/1.1".encode() + LINES)
    except MalformedHead:
        return
    assert head.target.startswith(b"/")
    assert head.target.isascii()


def test_a_query_that_is_not_ascii_is_not_dropped() -> None:
    head = parse_head("GET http://a/b?c=1&d=Ä#Ö HTTP/1.1".encode() + LINES)
    assert head.target == b"/b?c=1&d=%FF%FF"


@given(raw=st.binary())
def test_any_bytes_are_accepted_or_refused(raw: bytes) -> None:
    for start in (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: a\r\n"):
        try:
            head = parse_head(start + raw)
        except MalformedHead:
            continue
        assert may_be_head(start + raw, 0, 1 << 20), head


def test_a_head_that_does_not_match_is_refused_in_time_proportional_to_its_length() -> None:
    """64 kB of headers and one bad byte cause no backtracking."""
    raw = b"GET / HTTP/1.1" + b"\r\nA:" * 13_000 + b"\r\nA\x00"
    with pytest.raises(MalformedHead):
        parse_head(raw)
    with pytest.raises(MalformedHead):
        parse_head(b"GET / HTTP/1.1\r\nHost: " + b"a" * 60_000 + b"/")


@pytest.mark.parametrize("text", ["a", "a:1", "1.2.3.4", "[::1]", "[::1]:80", "xn--a_b.~", ""])
def test_an_authority_is_a_host_and_a_port(text: str) -> None:
    assert is_authority(text)
