"""Authentication, authorization and rate limits. Off unless configured.

The token file has one line for each credential: its rights, a space, the token.

    # a device, then a clinic's reader
    write 3f9c0d…
    read  77ab21…
    write,read 51ee08…

Only digests of tokens are kept in memory. The time of a comparison does not depend on where two
tokens differ, and a core dump contains no token.
"""

import re
from hashlib import sha256
from math import ceil, inf
from pathlib import Path
from time import monotonic

import structlog
from sanic import Request

from busyapi.api.rate_limit import RateLimiter, RefusedClients, client_network
from busyapi.errors import ConfigError
from busyapi.web.problems import Problem

log = structlog.get_logger()

RIGHTS = {"write", "read"}
COMMENT_PATTERN = re.compile(r"(^|\s)#.*")
"""A # within a token belongs to the token."""
BURST_SECONDS = 2.0
"""After a pause a device may send as many usages at once as its rate allows in this time."""
FAILURE_RATE, FAILURE_BURST = 1.0, 60.0
"""Requests per second, and at once, that each address may send without a valid token."""
LOG_INTERVAL_SECONDS = 10.0
"""Refusals over that rate are logged at most once in this time."""


class RequestAuthorizer:
    """Checks each request. No `rights`: no authentication; a `rate` of 0: no limit."""

    def __init__(self, rights: dict[str, set[str]] | None, rate: float) -> None:
        self._rights = rights
        self._rate_limiter = RateLimiter(rate, rate * BURST_SECONDS) if rate else None
        self._refused_clients = RefusedClients()
        self._failure_limiter = RateLimiter(FAILURE_RATE, FAILURE_BURST)
        self._logged_at, self._unlogged_count = -inf, 0

    def authorize(self, request: Request, right: str) -> str:
        """Check a request for one usage; return the digest of its credential, or "" without one.

        Raises:
            Problem: 401 without a known token, 403 without the right, 429 over the rate.
        """
        credential = "" if self._rights is None else self._authenticate(request, right)
        self._charge_rate(credential or client_network(str(request.ip)), 1)
        return credential

    def check_batch(self, request: Request) -> str:
        """Check a batch as `authorize` does, before its body is read.

        The number of usages in a batch is known only after decoding. So a client whose batch was
        refused at that point must wait for its Retry-After. Otherwise it could make this process
        decode batch after batch at the price of one usage each.

        Raises:
            Problem: as for `authorize`; 429 until the Retry-After of the last refused batch has
                passed.
        """
        credential = "" if self._rights is None else self._authenticate(request, "write")
        device = credential or client_network(str(request.ip))
        if seconds := self._refused_clients.remaining_seconds(device):
            raise _over_rate(seconds)
        self._charge_rate(device, 1)
        return credential

    def charge_batch(self, request: Request, credential: str, usages: int) -> None:
        """Charge the usages of a batch, except the first, which `check_batch` has charged.

        Raises:
            Problem: 429 over the rate.
        """
        device = credential or client_network(str(request.ip))
        if self._rate_limiter and (
            seconds := self._rate_limiter.charge(device, usages - 1, already_charged=1)
        ):
            refusal = _over_rate(seconds)
            self._refused_clients.add(device, int(refusal.headers["Retry-After"]))
            raise refusal

    def _authenticate(self, request: Request, right: str) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = _digest_token(token.strip())
        rights = self._rights.get(digest) if self._rights else None
        if scheme.lower() == "bearer" and rights and right in rights:
            return digest
        # A valid token always passes, whatever its address sends: clients of a proxy share one.
        address = client_network(str(request.ip))
        if seconds := self._failure_limiter.charge(address, 1):
            self._log_refused(address)
            raise _too_many_requests(
                "Too many requests from this address had no valid token. Wait, then send one.",
                seconds,
            )
        if scheme.lower() == "bearer" and rights:
            raise Problem(403, f"This token has no right to {right} usages.")
        raise Problem(
            401,
            "The request has no valid token. Send `Authorization: Bearer <token>`.",
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
    return _too_many_requests("This device exceeds its rate limit.", seconds)


def _too_many_requests(detail: str, seconds: float) -> Problem:
    return Problem(429, detail, {"Retry-After": str(max(1, ceil(seconds)))})


def make_authorizer(tokens_file: str, rate: float) -> RequestAuthorizer | None:
    """Return the authorizer for these settings, or None if they configure no check.

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
    rights_by_digest: dict[str, set[str]] = {}
    for number, line in enumerate(lines, 1):
        words = COMMENT_PATTERN.sub("", line).split()
        if not words:
            continue
        rights = set(words[0].split(","))
        if len(words) != 2 or not rights <= RIGHTS:  # noqa: PLR2004 - rights and token
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE, line {number}: write `write`, `read` or `write,read`,"
                " a space, and the token"
            )
        rights_by_digest[_digest_token(words[1])] = rights
    if not rights_by_digest:
        raise ConfigError(
            "BUSYAPI_TOKENS_FILE has no token, so every request would get 401. Add one."
        )
    return rights_by_digest


def _digest_token(token: str) -> str:
    # Sanic decodes invalid UTF-8 to surrogates; no token in the file has any.
    return sha256(token.encode(errors="surrogateescape")).hexdigest()
