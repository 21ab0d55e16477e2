"""The head of an ordinary post, which the fast path parses in one pass and caches.

A head that `web/head.py` would refuse, or with a header that changes the meaning of the request,
goes to Sanic's route. So this parser accepts less than the RFC allows, and never more.
"""

import re
from typing import NamedTuple, TypeVar

from busyapi.web.head import is_authority
from busyapi.web.request_id import extract

_T = TypeVar("_T")

MAX_HEAD_BYTES = 2048
"""Larger heads go to Sanic, and are not cached."""
CACHE_SIZE = 1024
"""Heads in each cache, at most 2 MiB of them. A device sends the same head each time."""

_HEAD = re.compile(rb"POST /api/usages HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~\w-]+:[\t\x20-\x7e]*)+")
_LENGTH = re.compile(rb"[0-9]{1,8}")
_SLOW_PATH_HEADERS = {
    b"content-encoding",
    b"expect",
    b"idempotency-key",
    b"origin",
    b"transfer-encoding",
    b"upgrade",
    b"x-request-id",
}
"""Headers that change the meaning of a request, and an id that `extract` left in the head."""
_FAST_PATH_CONNECTIONS = {b"keep-alive"}
"""Values of Connection that change nothing."""

_AUTHORIZATIONS = (b"\r\nAuthorization: ", b"\r\nauthorization: ")
"""As clients and proxies write it. Any other spelling stays in the head."""
AUTHORIZATION, CERTIFICATE = 1, 2
"""Kinds of credentials, as bits."""
_CREDENTIAL_HEADERS = {
    b"authorization": AUTHORIZATION,
    b"ssl-client-subject-dn": CERTIFICATE,
    b"ssl-client-verify": CERTIFICATE,
    b"x-forwarded-client-cert": CERTIFICATE,
}


class OrdinaryHead(NamedTuple):
    """A head that Sanic need not parse."""

    length: int
    """Its Content-Length."""
    credentials: int
    """The kinds of credentials in it."""


HEAD_CACHE: dict[bytes, OrdinaryHead] = {}
"""Each cached head, without its X-Request-ID and the Authorization that was taken out of it."""


class HeadParts(NamedTuple):
    """What the fast path needs of a head."""

    ordinary: OrdinaryHead | None
    """None: Sanic must parse the head."""
    authorization: bytes | None = None
    request_id: bytes | None = None


AUTHORIZED_HEADS: dict[bytes, HeadParts] = {}
"""Complete heads with a verified Authorization: a client sends the same one many times."""


def read_head(head: bytes, *, with_authorization: bool) -> HeadParts:
    """Return the parts of a head, from the caches if possible."""
    if with_authorization:
        if parts := AUTHORIZED_HEADS.get(head):
            return parts
        rest, authorization = take_authorization(head.removeprefix(b"\r\n"))
    else:
        rest, authorization = head.removeprefix(b"\r\n"), None
    request_id = None
    ordinary = HEAD_CACHE.get(rest)
    if ordinary is None:
        rest, request_id = extract(rest)
        ordinary = HEAD_CACHE.get(rest)
    if ordinary is None and (ordinary := parse_ordinary_head(rest)) is not None:
        _add(HEAD_CACHE, rest, ordinary)
    return HeadParts(ordinary, authorization, request_id)


def cache_authorized_head(head: bytes, parts: HeadParts) -> None:
    """Cache a head whose credential was recalled. What no client has verified is not kept."""
    if parts.request_id is None:
        _add(AUTHORIZED_HEADS, head, parts)


def _add(cache: dict[bytes, _T], head: bytes, entry: _T) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.clear()  # the next request of each client adds its head again
    cache[head] = entry


def take_authorization(head: bytes) -> tuple[bytes, bytes | None]:
    """Remove the Authorization from a head, so that the heads of two devices become equal.

    Return the head and the value, which is not checked: it is valid only if it equals one that was
    verified. A second Authorization stays in the head.
    """
    for prefix in _AUTHORIZATIONS:
        at = head.find(prefix)
        if at >= 0:
            start = at + len(prefix)
            end = head.find(b"\r\n", start)
            if end < 0:
                return head[:at], head[start:]
            return head[:at] + head[end:], head[start:end]
    return head, None


def parse_ordinary_head(head: bytes) -> OrdinaryHead | None:  # noqa: C901 - one pass
    """Return the length and the credentials of a head, or None if Sanic must parse the head."""
    if not _HEAD.fullmatch(head):
        return None
    length = connection = host = None
    credentials = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.lstrip()
        if name in _SLOW_PATH_HEADERS:
            return None
        credentials |= _CREDENTIAL_HEADERS.get(name, 0)
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == b"connection":
            if connection is not None or value.lower() not in _FAST_PATH_CONNECTIONS:
                return None
            connection = value
        elif name == b"host":
            if host is not None or not is_authority(value.decode()):
                return None
            host = value
    if length is None or host is None:
        return None
    return OrdinaryHead(length, credentials)
