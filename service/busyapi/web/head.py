"""The head of a request: its request line and header fields (RFC 9112, sections 2 to 6).

A proxy in front of this service has read the same bytes. Where the two could disagree on where a
request ends, or on what it asks for, a client could hide a second request in the first. So
whatever a recipient may read in more than one way is refused here, and never repaired.

This module parses bytes and knows nothing of Sanic.
"""

import re
from typing import NamedTuple

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FIELD = rb"%b:[\t\x20-\x7e\x80-\xff]*" % _TOKEN
"""One header field without its line end. Control characters are in no value."""

# Possessive quantifiers: a head that does not match fails in one pass.
_HEAD = re.compile(
    rb"(%b) ([\x21-\x7e\x80-\xff]++) HTTP/1\.([01])((?:\r\n%b+)*+)" % (_TOKEN, FIELD)
)
_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
"""What no head holds: control characters, and a CR or LF alone."""

_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)([^#]*)")
_ORIGIN = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_DIGITS = re.compile(r"[0-9]+")
MAX_LENGTH_DIGITS = 18
"""A longer Content-Length is beyond any limit; what it says does not matter."""

_FRAMING = frozenset(("host", "connection", "content-length", "transfer-encoding", "expect"))


class MalformedHead(Exception):
    """The head is not one that every recipient reads in the same way."""


class Head(NamedTuple):
    """A request without its body."""

    method: str
    target: bytes
    """In origin form, in US-ASCII, without a fragment."""
    version: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    keep_alive: bool
    chunked: bool
    length: int | None
    """The Content-Length, None without one."""
    expect: str | None


def may_be_head(partial: bytes | bytearray, start: int, end: int) -> bool:
    """Return whether nothing in a part of some bytes is what no head holds."""
    return _NEVER.search(partial, start, end) is None


def is_authority(text: str) -> bool:
    """Return whether a text is `host` or `host:port` (RFC 3986, section 3.2, no user)."""
    if _AUTHORITY.fullmatch(text) is None:
        return False
    return "%" not in text or _BAD_PERCENT.search(text) is None


def parse_head(raw: bytes) -> Head:
    """Parse a head, given without the empty line that ends it.

    Raises:
        MalformedHead: it is refused.
    """
    found = _HEAD.fullmatch(raw)
    if found is None:
        raise MalformedHead
    method, target, minor, fields = found.groups()
    headers: list[tuple[str, str]] = []
    framing: dict[str, list[str]] = {}
    # Bytes that are no UTF-8 are kept as surrogates: some header may hold them.
    for line in fields.decode(errors="surrogateescape").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers.append((name, value))
        if name in _FRAMING:
            framing.setdefault(name, []).append(value)
    modern = minor == b"1"
    _check_host(framing.get("host"), required=modern)
    lengths, options = framing.get("content-length"), framing.get("connection")
    return Head(
        method.decode(),
        target if _ORIGIN.fullmatch(target) else _origin_form(method, target),
        "1.1" if modern else "1.0",
        headers,
        _keep_alive(options, default=modern) if options else modern,
        "transfer-encoding" in framing and _is_chunked(framing, allowed=modern),
        None if lengths is None else _content_length(lengths),
        ",".join(framing["expect"]) if modern and "expect" in framing else None,
    )


def _check_host(hosts: list[str] | None, *, required: bool) -> None:
    if hosts is None:
        if required:
            raise MalformedHead
    elif len(hosts) > 1 or not is_authority(hosts[0]):
        raise MalformedHead


def _is_chunked(framing: dict[str, list[str]], *, allowed: bool) -> bool:
    codings = framing["transfer-encoding"]
    # With a Content-Length beside it, or in HTTP/1.0, another recipient may not heed it.
    if not allowed or "content-length" in framing:
        raise MalformedHead
    if len(codings) != 1 or _lower(codings[0]) != "chunked":
        raise MalformedHead
    return True


def _content_length(fields: list[str]) -> int:
    """Parse the Content-Length; equal repetitions count as one (RFC 9112, section 6.3)."""
    if len(fields) == 1 and _LENGTH.fullmatch(fields[0]):
        return int(fields[0])
    values = {each.strip(" \t") for each in ",".join(fields).split(",")}
    value = values.pop()
    if values or not _DIGITS.fullmatch(value):
        raise MalformedHead
    return int(value) if len(value) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS


def _lower(value: str) -> str:
    # `lower` makes ASCII letters of a few others, such as the Kelvin sign.
    return value.lower() if value.isascii() else value


def _keep_alive(fields: list[str], *, default: bool) -> bool:
    options = {_lower(each.strip(" \t")) for each in ",".join(fields).split(",")}
    return "close" not in options and (default or "keep-alive" in options)


def _origin_form(method: bytes, target: bytes) -> bytes:
    """Return the path and query of a target; the host that it may name is not looked at."""
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return b"/"
        found = _ABSOLUTE.match(target)
        if found is None or not is_authority(found[1].decode("latin-1")):
            raise MalformedHead
        target = found[2] if found[2].startswith(b"/") else b"/" + found[2]
    target = target.partition(b"#")[0]
    if target.isascii():
        return target
    # A query means nothing here, whatever its bytes; a path is compared with routes.
    path = target.partition(b"?")[0]
    if not path.isascii():
        raise MalformedHead
    return path
