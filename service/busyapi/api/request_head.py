"""The head of an ordinary post, which the fast path parses in one pass and caches.

A head that `web/head.py` would refuse, or with a header that changes the meaning of the request,
goes to Sanic's route. So this parser accepts less than the RFC allows, and never more.
"""

import re

from busyapi.web.head import is_authority

MAX_HEAD_BYTES = 2048
"""Larger heads go to Sanic, and are not cached."""
CACHE_SIZE = 1024
"""Heads in the cache, at most 2 MiB of them. A device sends the same head each time."""

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

LENGTH_CACHE: dict[bytes, int] = {}
"""The Content-Length of each cached head, without its X-Request-ID."""


def cached_content_length(head: bytes) -> int | None:
    """Return the result of `parse_content_length` from the cache, or add it."""
    length = LENGTH_CACHE.get(head)
    if length is None and (length := parse_content_length(head)) is not None:
        if len(LENGTH_CACHE) >= CACHE_SIZE:
            LENGTH_CACHE.clear()  # the next request of each client adds its head again
        LENGTH_CACHE[head] = length
    return length


def parse_content_length(head: bytes) -> int | None:
    """Return the Content-Length of a head, or None if Sanic must parse the head."""
    if not _HEAD.fullmatch(head):
        return None
    length = connection = host = None
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.lstrip()
        if name in _SLOW_PATH_HEADERS:
            return None
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
    return length if host is not None else None
