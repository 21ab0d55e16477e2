"""The head of an ordinary post of a usage or a batch, which the fast path reads in one pass.

A head that `web/head.py` would refuse, or with a header that changes the meaning of the request,
goes to Sanic's route. So this parser accepts less than the RFC allows, and never more.

Behind a proxy the values of most headers differ in each request, but their names and order do not.
So the parser makes a pattern of a head: one regular expression, which matches every head of the
same names and order that the parser would accept, at a fifth of the parser's cost.
"""

import re
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from busyapi.api.idempotency import KEY_PATTERN
from busyapi.web.head import is_authority
from busyapi.web.request_id import VALID_ID

MAX_HEAD_BYTES = 4096
"""Larger heads go to Sanic."""
MAX_PATTERNS = 8
"""Patterns in a process: clients and proxies of that many kinds."""
_MAX_PATTERN_BYTES = 1536
"""Bytes of the regular expression; 14 headers take 700."""
_SECONDS_PER_PATTERN = 1.0
"""Making a pattern takes up to a millisecond."""

_HEAD = re.compile(
    rb"POST /api/usages(/batch)? HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~\w-]+:[\t\x20-\x7e]*)+"
)
_LENGTH = re.compile(rb"[0-9]{1,8}")
_KEY = re.compile(KEY_PATTERN.pattern.encode())
_ANY_VALUE = rb"[\t\x20-\x7e]*+"
_GROUPS = {
    b"content-length": b"(?P<length>" + _LENGTH.pattern + b")",
    b"idempotency-key": b"(?P<key>" + _KEY.pattern + b"+)",
    b"x-request-id": b"(?P<id>" + VALID_ID.pattern.encode() + b"+)",
    b"authorization": b"(?P<authorization>" + _ANY_VALUE + b")",
}
_VALUES = ("length", "authorization", "id", "key")
"""The values that a pattern returns, by header, and their names."""
_SLOW_PATH_HEADERS = {
    b"content-encoding",
    b"expect",
    b"origin",
    b"transfer-encoding",
    b"upgrade",
}
"""Headers that change the meaning of a request."""
_FAST_PATH_CONNECTIONS = {b"keep-alive"}
"""Values of Connection that change nothing."""

_AUTHORIZATIONS = (b"Authorization: ", b"authorization: ")
"""As clients and proxies write it. With any other spelling, the route verifies the credential."""
AUTHORIZATION, CERTIFICATE = 1, 2
"""Kinds of credentials, as bits."""
_CREDENTIAL_HEADERS = {
    b"authorization": AUTHORIZATION,
    b"ssl-client-subject-dn": CERTIFICATE,
    b"ssl-client-verify": CERTIFICATE,
    b"x-forwarded-client-cert": CERTIFICATE,
}


class HeadParts(NamedTuple):
    """What the fast path needs of a head."""

    length: int
    """Its Content-Length."""
    credentials: int
    """The kinds of credentials in it, without `authorization`."""
    authorization: bytes | None = None
    """The value of its first Authorization, which is not checked: it is valid only if it equals one
    that was verified."""
    request_id: bytes | None = None
    key: bytes | None = None
    """The Idempotency-Key."""
    is_batch: bool = False


class _Pattern(NamedTuple):
    match: Callable[[bytes], re.Match[bytes] | None]
    credentials: int
    is_batch: bool


class HeadReader:
    """Reads the heads of one process."""

    def __init__(self, *, reads_authorization: bool) -> None:
        """`reads_authorization`: the value of Authorization matters."""
        self._reads_authorization = reads_authorization
        self._patterns: list[_Pattern] = []
        """The one that matched last is the first."""
        self.unknown_head: bytes | None = None
        """The last head that was parsed without a pattern."""
        self._next_pattern_at = 0.0

    def read(self, head: bytes) -> HeadParts | None:
        """Return the parts of a head, or None if Sanic must parse the head."""
        for index, (match_head, credentials, is_batch) in enumerate(self._patterns):
            if match := match_head(head):
                if index:
                    self._patterns.insert(0, self._patterns.pop(index))
                length, authorization, request_id, key = match.group(*_VALUES)
                return HeadParts(int(length), credentials, authorization, request_id, key, is_batch)
        parts = _parse(head.removeprefix(b"\r\n"), reads_authorization=self._reads_authorization)
        self.unknown_head = head if parts else None
        return parts

    def learn(self, head: bytes, parts: HeadParts) -> None:
        """Make a pattern of a head that `read` did not know.

        Call it only for a client that may post. Otherwise a stranger could displace other patterns,
        or use the one new pattern per second.
        """
        self.unknown_head = None
        now = monotonic()
        if now < self._next_pattern_at:
            return
        pattern = _make_pattern(
            head.removeprefix(b"\r\n"), parts, reads_authorization=self._reads_authorization
        )
        if len(pattern) <= _MAX_PATTERN_BYTES:
            self._next_pattern_at = now + _SECONDS_PER_PATTERN
            compiled = re.compile(pattern)
            re.purge()  # its cache would keep 500 patterns that were dropped here
            del self._patterns[MAX_PATTERNS - 1 :]
            self._patterns.insert(
                0, _Pattern(compiled.fullmatch, parts.credentials, parts.is_batch)
            )


def _parse(  # noqa: C901, PLR0912 - one pass
    head: bytes, *, reads_authorization: bool
) -> HeadParts | None:
    match = _HEAD.fullmatch(head)
    if not match:
        return None
    is_batch = match[1] is not None
    length = connection = host = authorization = request_id = key = None
    credentials = 0
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
        elif name == b"x-request-id":
            if request_id is not None or not VALID_ID.fullmatch(value.decode()):
                return None
            request_id = value
        elif name == b"idempotency-key":
            if key is not None or not _KEY.fullmatch(value):
                return None
            key = value
        elif is_batch and name == b"content-type":
            if b"ndjson" in value.lower():
                return None
        elif reads_authorization and authorization is None and line.startswith(_AUTHORIZATIONS):
            authorization = line[len(_AUTHORIZATIONS[0]) :]
        else:
            credentials |= _CREDENTIAL_HEADERS.get(name, 0)
    if length is None or host is None:
        return None
    return HeadParts(length, credentials, authorization, request_id, key, is_batch)


def _make_pattern(head: bytes, parts: HeadParts, *, reads_authorization: bool) -> bytes:
    """Return a pattern of the heads that differ from an ordinary one only in some values.

    Whatever matches it would be parsed with the same result: the values of Host and Connection, and
    of a batch's Content-Type, are equal, and all others are of the kind that the parser accepts.
    """
    first, *lines = head.split(b"\r\n")
    pattern, groups = rb"(?:\r\n)?+" + re.escape(first), dict(_GROUPS)
    fixed = (b"host", b"connection", b"content-type" if parts.is_batch else b"")
    for line in lines:
        name = line.partition(b":")[0]
        kind = name.lower()
        start = b"\r\n" + re.escape(name) + b":"
        if kind in fixed:
            pattern += b"\r\n" + re.escape(line)
        elif kind == b"authorization" and reads_authorization:
            # A second Authorization header, or another spelling, only sets a bit in `credentials`;
            # its value is not captured.
            if line.startswith(_AUTHORIZATIONS) and kind in groups:
                pattern += start + b" " + groups.pop(kind)
            else:
                pattern += b"\r\n" + re.escape(line)
        elif kind in groups and kind != b"authorization":
            pattern += start + rb"[\t ]*+" + groups.pop(kind)
        else:
            pattern += start + _ANY_VALUE
    # A group that is missing here gets one that takes part in no match.
    for value in _VALUES:
        if b"(?P<%b>" % value.encode() not in pattern:
            pattern += b"(?P<%b>(?!))?" % value.encode()
    return pattern
