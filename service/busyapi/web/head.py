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

_HOST = (
    r"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*+"  # a name or an IPv4 address
    r"|\[[0-9A-Fa-f:.]+\]"
)
_AUTHORITY = re.compile(rf"(?:{_HOST})(?::[0-9]{{0,5}})?")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)([^#]*)")
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


def can_become_head(partial: bytes | bytearray, start: int, end: int) -> bool:
    """Return whether nothing in a part of some bytes is what no head holds."""
    return _NEVER.search(partial, start, end) is None


def is_authority(text: str) -> bool:
    """Return whether a text is `host` or `host:port` (RFC 3986, section 3.2, no user)."""
    return _AUTHORITY.fullmatch(text) is not None


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
        field = name.lower(), value.strip(" \t")
        headers.append(field)
        if field[0] in _FRAMING:
            framing.setdefault(field[0], []).append(field[1])
    modern = minor == b"1"
    _check_host(framing.get("host", []), required=modern)
    chunked = _is_chunked(framing, allowed=modern)
    return Head(
        method=method.decode(),
        target=_origin_form(method, target),
        version="1.1" if modern else "1.0",
        headers=headers,
        keep_alive=_keep_alive(framing.get("connection", []), default=modern),
        chunked=chunked,
        length=_content_length(framing["content-length"]) if "content-length" in framing else None,
        expect=",".join(framing["expect"]) if modern and "expect" in framing else None,
    )


def _check_host(hosts: list[str], *, required: bool) -> None:
    if len(hosts) > 1 or (required and not hosts):
        raise MalformedHead
    if hosts and not is_authority(hosts[0]):
        raise MalformedHead


def _is_chunked(framing: dict[str, list[str]], *, allowed: bool) -> bool:
    codings = framing.get("transfer-encoding")
    if codings is None:
        return False
    # With a Content-Length beside it, or in HTTP/1.0, another recipient may not heed it.
    if not allowed or "content-length" in framing:
        raise MalformedHead
    if len(codings) != 1 or _lower(codings[0]) != "chunked":
        raise MalformedHead
    return True


def _content_length(fields: list[str]) -> int:
    """Parse the Content-Length; equal repetitions count as one (RFC 9112, section 6.3)."""
    values = {each.strip(" \t") for each in ",".join(fields).split(",")}
    value = values.pop()
    if values or not _DIGITS.fullmatch(value):
        raise MalformedHead
    return int(value) if len(value) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS


def _lower(value: str) -> str:
    # `lower` makes ASCII letters of a few others, such as the Kelvin sign.
    return value.lower() if value.isascii() else value


def _keep_alive(fields: list[str], *, default: bool) -> bool:
    if not fields:
        return default
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
