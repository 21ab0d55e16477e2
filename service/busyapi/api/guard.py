"""Who may ask for what, and how often. Off unless set.

The token file has a line for each credential: what it may do, a blank, the token.

    # a device, and a clinic's reader
    write 3f9c0d…
    read  77ab21…
    write,read 51ee08…

Tokens are kept as digests: comparing them takes the same time wherever they differ, and a core
dump holds none.
"""

import re
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import monotonic

from sanic import Request

from busyapi.errors import ConfigError
from busyapi.web.problems import Problem

RIGHTS = {"write", "read"}
COMMENT = re.compile(r"(^|\s)#.*")
"""A # within a token is a part of it."""
BURST_SECONDS = 2.0
"""A device that was silent may send this many seconds' worth at once."""
MOST_DEVICES = 100_000
"""The bound on what the limiter remembers: the longest silent is forgotten first."""


class Guard:
    """Checks one request. Rights are None when authentication is off, rate 0 for no limit."""

    def __init__(self, rights: dict[str, set[str]] | None, rate: float) -> None:
        self._rights = rights
        self._rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}

    def check(self, request: Request, right: str) -> str:
        """Let a request pass; give its credential by digest, "" without authentication.

        Raises:
            Problem: 401 without a known token, 403 without the right, 429 over the rate.
        """
        device = str(request.ip)
        if self._rights is not None:
            device = self._credential(request, right)
        if self._rate:
            self._limit(device)
        return device if self._rights is not None else ""

    def _credential(self, request: Request, right: str) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = _digest(token.strip())
        rights = self._rights.get(digest) if self._rights else None
        if scheme.lower() != "bearer" or rights is None:
            raise Problem(
                401,
                "Send `Authorization: Bearer <token>` with a token that is known here.",
                {"WWW-Authenticate": 'Bearer realm="busyapi"'},
            )
        if right not in rights:
            raise Problem(403, f"This token may not {right} usages.")
        return digest

    def _limit(self, device: str) -> None:
        # A token bucket; it refills with time, so only its last state is kept.
        now = monotonic()
        burst = max(1.0, self._rate * BURST_SECONDS)
        left, since = self._buckets.pop(device, (burst, now))
        left = min(burst, left + (now - since) * self._rate)
        allowed = left >= 1.0
        self._buckets[device] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > MOST_DEVICES:
            del self._buckets[next(iter(self._buckets))]
        if not allowed:
            seconds = max(1, ceil((1.0 - left) / self._rate))
            raise Problem(
                429, "This device sends more than its rate.", {"Retry-After": str(seconds)}
            )


def guard(tokens_file: str, rate: float) -> Guard | None:
    """Make the guard that the settings ask for, None when they ask for none.

    Raises:
        ConfigError: the token file cannot be read; the message names the line, not the token.
    """
    if not tokens_file and not rate:
        return None
    return Guard(_read(tokens_file) if tokens_file else None, rate)


def _read(path: str) -> dict[str, set[str]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"BUSYAPI_TOKENS_FILE cannot be read: {error}") from None
    found: dict[str, set[str]] = {}
    for number, line in enumerate(lines, 1):
        words = COMMENT.sub("", line).split()
        if not words:
            continue
        rights = set(words[0].split(","))
        if len(words) != 2 or not rights <= RIGHTS:  # noqa: PLR2004 - rights and token
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE, line {number}: write `write`, `read` or `write,read`,"
                " a blank, and the token"
            )
        found[_digest(words[1])] = rights
    if not found:
        raise ConfigError("BUSYAPI_TOKENS_FILE holds no token: nobody could send anything")
    return found


def _digest(token: str) -> str:
    # Sanic gives bytes that are no UTF-8 as surrogates; no token in the file has any.
    return sha256(token.encode(errors="surrogateescape")).hexdigest()
