"""A parser of request heads: request line and header fields (RFC 9112, sections 2 to 6).

A proxy in front of this service parses the same bytes. If the two disagree on where a request ends,
or on its target, a client can hide a second request in the first (request smuggling). So a head
that recipients may interpret in more than one way is refused, and never repaired.

This module parses bytes and does not depend on Sanic.
"""

import re
from typing import NamedTuple

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FIELD = rb"%b:[\t\x20-\x7e\x80-\xff]*" % _TOKEN
"""One header field without its line end. A value has no control characters."""

# With possessive quantifiers a head that does not match fails in one pass.
_HEAD = re.compile(
    rb"(%b) ([\x21-\x7e\x80-\xff]++) HTTP/1\.([01])((?:\r\n%b+)*+)" % (_TOKEN, FIELD)
)
_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
"""Bytes that no head has: control characters, and a CR or LF on its own."""

_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
"""A percent sign that begins no escape (RFC 3986, section 2.1)."""
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)([^#]*)")
_ORIGIN = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_LENGTH = re.compile(r"[0-9]{1,18}")
_DIGITS = re.compile(r"[0-9]+")
MAX_LENGTH_DIGITS = 18
"""A longer Content-Length exceeds any limit, so its exact value does not matter."""

_FRAMING = frozenset(("host", "connection", "content-length", "transfer-encoding", "expect"))


class MalformedHead(Exception):
    """Some recipients could interpret the head differently."""


class Head(NamedTuple):
    """A parsed head."""

    method: str
    target: bytes
    """In origin form and US-ASCII, without a fragment."""
    version: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    keep_alive: bool
    chunked: bool
    length: int | None
    """The Content-Length, or None."""
    expect: str | None


def may_be_head(partial: bytes | bytearray, start: int, end: int) -> bool:
    """Return whether these bytes can be a part of a head: none of them is forbidden in one."""
    return _NEVER.search(partial, start, end) is None


def is_authority(text: str) -> bool:
    """Return whether a text is `host` or `host:port` (RFC 3986, section 3.2, without a user)."""
    if _AUTHORITY.fullmatch(text) is None:
        return False
    return "%" not in text or BAD_PERCENT.search(text) is None


def parse_head(raw: bytes) -> Head:
    """Parse a head, without the empty line that ends it.

    Raises:
        MalformedHead: the head is refused.
    """
    match = _HEAD.fullmatch(raw)
    if match is None:
        raise MalformedHead
    method, target, minor, fields = match.groups()
    headers: list[tuple[str, str]] = []
    framing: dict[str, list[str]] = {}
    # Headers may contain bytes that are not UTF-8; surrogates keep them.
    for line in fields.decode(errors="surrogateescape").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers.append((name, value))
        if name in _FRAMING:
            framing.setdefault(name, []).append(value)
    is_http_11 = minor == b"1"
    _check_host(framing.get("host"), required=is_http_11)
    lengths, options = framing.get("content-length"), framing.get("connection")
    return Head(
        method.decode(),
        target if _ORIGIN.fullmatch(target) else _make_origin_form(method, target),
        "1.1" if is_http_11 else "1.0",
        headers,
        _is_keep_alive(options, default=is_http_11) if options else is_http_11,
        "transfer-encoding" in framing and _check_chunked(framing, allowed=is_http_11),
        None if lengths is None else _parse_length(lengths),
        ",".join(framing["expect"]) if is_http_11 and "expect" in framing else None,
    )


def _check_host(hosts: list[str] | None, *, required: bool) -> None:
    if hosts is None:
        if required:
            raise MalformedHead
    elif len(hosts) > 1 or not is_authority(hosts[0]):
        raise MalformedHead


def _check_chunked(framing: dict[str, list[str]], *, allowed: bool) -> bool:
    codings = framing["transfer-encoding"]
    # In HTTP/1.0, or next to a Content-Length, another recipient may ignore it.
    if not allowed or "content-length" in framing:
        raise MalformedHead
    if len(codings) != 1 or _lower(codings[0]) != "chunked":
        raise MalformedHead
    return True


def _parse_length(fields: list[str]) -> int:
    """Parse the Content-Length; equal repetitions count as one (RFC 9112, section 6.3)."""
    if len(fields) == 1 and _LENGTH.fullmatch(fields[0]):
        return int(fields[0])
    values = {entry.strip(" \t") for entry in ",".join(fields).split(",")}
    value = values.pop()
    if values or not _DIGITS.fullmatch(value):
        raise MalformedHead
    return int(value) if len(value) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS


def _lower(value: str) -> str:
    # `lower` turns a few other letters into ASCII ones, such as the Kelvin sign.
    return value.lower() if value.isascii() else value


def _is_keep_alive(fields: list[str], *, default: bool) -> bool:
    options = {_lower(entry.strip(" \t")) for entry in ",".join(fields).split(",")}
    return "close" not in options and (default or "keep-alive" in options)


def _make_origin_form(method: bytes, target: bytes) -> bytes:
    """Return the path and query of a target; a host in it is not compared with anything."""
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return b"/"
        match = _ABSOLUTE.match(target)
        if match is None or not is_authority(match[1].decode("latin-1")):
            raise MalformedHead
        target = match[2] if match[2].startswith(b"/") else b"/" + match[2]
    target = target.partition(b"#")[0]
    if target.isascii():
        return target
    path, mark, query = target.partition(b"?")
    if not path.isascii():
        raise MalformedHead
    # Without its query a request for some usages would ask for all. So a query stays one that is
    # not UTF-8: posts ignore it, and lists refuse it.
    return path + mark + _NON_ASCII.sub(b"%FF", query)
