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
from math import ceil, inf
from pathlib import Path
from time import monotonic

import structlog
from sanic import Request

from busyapi.api.rate_limit import Holds, RateLimiter, client_network
from busyapi.errors import ConfigError
from busyapi.web.problems import Problem

log = structlog.get_logger()

RIGHTS = {"write", "read"}
COMMENT_PATTERN = re.compile(r"(^|\s)#.*")
"""A # within a token is a part of it."""
BURST_SECONDS = 2.0
"""A device that was silent may send this many seconds' worth at once."""
FAILURE_RATE, FAILURE_BURST = 1.0, 60.0
"""Requests a second, and at once, that each address may send without a known token."""
LOG_INTERVAL_SECONDS = 10.0
"""More of them have a line of log once in this time."""


class RequestAuthorizer:
    """Checks one request. Rights are None when authentication is off, rate 0 for no limit."""

    def __init__(self, rights: dict[str, set[str]] | None, rate: float) -> None:
        self._rights = rights
        self._rate_limiter = RateLimiter(rate, rate * BURST_SECONDS) if rate else None
        self._holds = Holds()
        self._failure_limiter = RateLimiter(FAILURE_RATE, FAILURE_BURST)
        self._logged_at, self._unlogged_count = -inf, 0

    def authorize(self, request: Request, right: str) -> str:
        """Let a request pass for one usage; give its credential by digest, "" without any.

        Raises:
            Problem: 401 without a known token, 403 without the right, 429 over the rate.
        """
        credential = "" if self._rights is None else self._authenticate(request, right)
        self._charge_rate(credential or client_network(str(request.ip)), 1)
        return credential

    def check_batch(self, request: Request) -> str:
        """Let a batch pass; as `authorize`, before a byte of it is read.

        How many usages a batch holds is known only after it is decoded. So a client whose batch
        was refused then is held to its Retry-After: otherwise it could make this process decode
        batch after batch for a usage each.

        Raises:
            Problem: as `authorize`; 429 before the Retry-After of the last refused batch has
            passed.
        """
        credential = "" if self._rights is None else self._authenticate(request, "write")
        device = credential or client_network(str(request.ip))
        if seconds := self._holds.left(device):
            raise _over_rate(seconds)
        self._charge_rate(device, 1)
        return credential

    def charge_batch(self, request: Request, credential: str, usages: int) -> None:
        """Charge the usages of a batch that `check_batch` let pass, which charged the first.

        Raises:
            Problem: 429 over the rate.
        """
        device = credential or client_network(str(request.ip))
        if self._rate_limiter and (
            seconds := self._rate_limiter.charge(device, usages - 1, already_charged=1)
        ):
            refusal = _over_rate(seconds)
            self._holds.add(device, int(refusal.headers["Retry-After"]))
            raise refusal

    def _authenticate(self, request: Request, right: str) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = _digest_token(token.strip())
        rights = self._rights.get(digest) if self._rights else None
        if scheme.lower() == "bearer" and rights and right in rights:
            return digest
        # A good token passes whatever comes from its address: proxies share one.
        address = client_network(str(request.ip))
        if seconds := self._failure_limiter.charge(address, 1):
            self._log_refused(address)
            raise _too_many_requests(
                "Too many requests from here had no token that is good for them.", seconds
            )
        if scheme.lower() == "bearer" and rights:
            raise Problem(403, f"This token may not {right} usages.")
        raise Problem(
            401,
            "Send `Authorization: Bearer <token>` with a token that is known here.",
            {"WWW-Authenticate": 'Bearer realm="busyapi"'},
        )

    def _charge_rate(self, device: str, cost: int) -> None:
        if self._rate_limiter and (seconds := self._rate_limiter.charge(device, cost)):
            raise _over_rate(seconds)

    def _log_refused(self, address: str) -> None:
        now = monotonic()
        self._unlogged_count += 1
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            log.warning("credentials_refused", address=address, requests=self._unlogged_count)
            self._logged_at, self._unlogged_count = now, 0


def _over_rate(seconds: float) -> Problem:
    return _too_many_requests("This device sends more than its rate.", seconds)


def _too_many_requests(detail: str, seconds: float) -> Problem:
    return Problem(429, detail, {"Retry-After": str(max(1, ceil(seconds)))})


def make_authorizer(tokens_file: str, rate: float) -> RequestAuthorizer | None:
    """Make the guard that the settings ask for, None when they ask for none.

    Raises:
        ConfigError: the token file cannot be read; the message names the line, not the token.
    """
    if not tokens_file and not rate:
        return None
    return RequestAuthorizer(_read_tokens(tokens_file) if tokens_file else None, rate)


def _read_tokens(path: str) -> dict[str, set[str]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"BUSYAPI_TOKENS_FILE cannot be read: {error}") from None
    found: dict[str, set[str]] = {}
    for number, line in enumerate(lines, 1):
        words = COMMENT_PATTERN.sub("", line).split()
        if not words:
            continue
        rights = set(words[0].split(","))
        if len(words) != 2 or not rights <= RIGHTS:  # noqa: PLR2004 - rights and token
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE, line {number}: write `write`, `read` or `write,read`,"
                " a blank, and the token"
            )
        found[_digest_token(words[1])] = rights
    if not found:
        raise ConfigError("BUSYAPI_TOKENS_FILE holds no token: nobody could send anything")
    return found


def _digest_token(token: str) -> str:
    # Sanic gives bytes that are no UTF-8 as surrogates; no token in the file has any.
    return sha256(token.encode(errors="surrogateescape")).hexdigest()
