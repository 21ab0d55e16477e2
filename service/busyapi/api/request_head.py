"""The head of an ordinary post: the fast path reads it in one go, and remembers what it read.

What `web/head.py` would refuse, and what changes the meaning of a request, is left to Sanic's
route; so this takes less than the RFC allows, and never more.
"""

import re

from busyapi.web.head import is_authority

MAX_HEAD_BYTES = 2048
"""Bytes of a header that is worth remembering; larger ones go to Sanic."""
CACHE_SIZE = 1024
"""Headers remembered: 2 MiB at most. A device sends the same one each time."""

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
"""Headers that change what a request means; and an id that `cut` left."""
_FAST_PATH_CONNECTIONS = {b"keep-alive"}
"""Values of Connection that change nothing."""


LENGTH_CACHE: dict[bytes, int] = {}
"""What `parse_content_length` said of headers without an id of their own."""


def cached_content_length(head: bytes) -> int | None:
    """Do as `parse_content_length`, and remember what it said."""
    length = LENGTH_CACHE.get(head)
    if length is None and (length := parse_content_length(head)) is not None:
        if len(LENGTH_CACHE) >= CACHE_SIZE:
            LENGTH_CACHE.clear()  # those in use are back at their next request
        LENGTH_CACHE[head] = length
    return length


def parse_content_length(head: bytes) -> int | None:
    """Read a header's Content-Length; None when Sanic must read the header."""
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
