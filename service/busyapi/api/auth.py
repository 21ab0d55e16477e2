"""Who sends a request, what that client may do, and how much.

`auth` verifies credentials; this module connects it to requests. A request without a credential has
the scopes of BUSYAPI_ANONYMOUS, by default none.
"""

from collections.abc import Iterable
from functools import partial
from math import ceil, inf
from time import monotonic

import structlog
from sanic import Request

from busyapi.api.client_limits import TENANT, ClientLimits
from busyapi.api.portion_pool import PortionPool
from busyapi.api.rate_headers import make_headers, render_lines
from busyapi.api.rate_limit import Excess, RateLimiter, RefusedClients, client_network
from busyapi.api.request_head import AUTHORIZATION, CERTIFICATE
from busyapi.auth.authenticator import Authenticator
from busyapi.auth.client_certificate import CertificateName, ClientCertificates
from busyapi.auth.credential import Credential, make_anonymous
from busyapi.auth.proxies import TrustedProxies
from busyapi.errors import CredentialKeysUnavailable, InvalidCredential
from busyapi.web.problems import Problem

log = structlog.get_logger()

FAILURE_RATE, FAILURE_BURST = 1.0, 60.0
"""Requests per second, and in a burst, that each address may send without a valid credential."""
LOG_INTERVAL_SECONDS = 10.0
"""Refusals over that rate are logged at most once in this time."""


class RequestAuthorizer:
    """Checks each request. By default nothing is allowed, and nothing is limited."""

    def __init__(
        self,
        authenticator: Authenticator | None = None,
        *,
        anonymous: Iterable[str] = (),
        limits: ClientLimits | None = None,
        proxies: TrustedProxies | None = None,
        certificates: ClientCertificates | None = None,
    ) -> None:
        self.authenticator = authenticator
        self.anonymous = make_anonymous(anonymous)
        self.reads_credentials = AUTHORIZATION * bool(authenticator) | CERTIFICATE * bool(
            certificates
        )
        """The kinds of credentials that this process reads."""
        self._proxies = proxies or TrustedProxies()
        self._certificates = certificates
        self._limits = limits or ClientLimits(PortionPool(()))
        self._anonymous_writer = self.anonymous if "write" in self.anonymous.scopes else None
        """The credential of a post without one. None: such a post is refused."""
        self.unlimited_writer = None if self.is_limited(self.anonymous) else self._anonymous_writer
        """The same without a limit. The fast path compares it for each request."""
        self._only_writer = None if authenticator else self.unlimited_writer
        """The same if there are no other credentials: then a post needs no check."""
        self._refused_clients = RefusedClients()
        self._failure_limiter = RateLimiter(FAILURE_RATE, FAILURE_BURST)
        self._logged_at, self._unlogged_count = -inf, 0

    async def authorize(self, request: Request, *scopes: str) -> Credential:
        """Return the credential of a request for one usage, if it has one of the scopes.

        Raises:
            Problem: 401 without a valid credential, 403 without one of the scopes, 429 over the
                rate.
            CredentialKeysUnavailable: it has a JWT, and there are no keys to verify it.
        """
        if self._only_writer and scopes == ("write",):
            return self._only_writer
        credential = await self._authenticate(request, scopes)
        await self._charge(request, credential, 1)
        return credential

    async def check_batch(self, request: Request) -> Credential:
        """Check a batch as `authorize` does, before its body is read.

        The number of usages in a batch is known only after decoding. So a client whose batch was
        refused at that point must wait for its Retry-After. Otherwise it could make this process
        decode batch after batch at the price of one usage each.

        Raises:
            Problem: as for `authorize`; 429 until the Retry-After of the last refused batch has
                passed.
        """
        if self._only_writer:
            return self._only_writer
        credential = await self._authenticate(request, ("write",))
        if refusal := self._refused_clients.find(self.name_client(request, credential)):
            raise self._refuse(request, credential, refusal)
        await self._charge(request, credential, 1)
        return credential

    async def charge_batch(self, request: Request, credential: Credential, usages: int) -> None:
        """Charge the usages of a batch, except the first, which `check_batch` has charged.

        Raises:
            Problem: 429 over the rate.
        """
        try:
            await self._charge(request, credential, usages - 1, already_charged=1)
        except OverRate as refusal:
            self._refused_clients.add(self.name_client(request, credential), refusal.excess)
            raise

    @property
    def problem(self) -> str:
        """Return why this process is not ready to verify credentials, or ""."""
        return self.authenticator.problem if self.authenticator else ""

    def find_writer(self, authorization: bytes | None, credentials: int) -> Credential | None:
        """Return the credential of a post that `authorize` would allow; None if it must decide.

        `authorization` is the header's value, `credentials` the kinds in all other headers. A value
        is known once `authorize` has verified it, until it expires or is revoked.
        """
        if authorization is None:
            return None if credentials & self.reads_credentials else self._anonymous_writer
        if credentials & AUTHORIZATION or self.authenticator is None:
            return None
        credential = self.authenticator.recall(authorization)
        return credential if credential is not None and "write" in credential.scopes else None

    def is_limited(self, credential: Credential) -> bool:
        """Return whether a credential has a limit."""
        return self._limits.is_limited(credential)

    def charge_usage(self, credential: Credential, peer: str) -> bool:
        """Charge one usage and return True; return False, and charge nothing, if this cannot."""
        if not credential.id and self._proxies:
            return False  # the client's address is in a header
        return self._limits.try_charge(credential, peer)

    def render_limits(self, credential: Credential, address: str) -> bytes:
        """Return the header lines about the limits of a client that `charge_usage` has charged."""
        return render_lines(self._limits.describe(credential, address))

    def limit_headers_of(self, request: Request, credential: Credential) -> dict[str, str]:
        """Return the headers about the limits of the client of a request, if it has any."""
        if not self.is_limited(credential):
            return {}
        address = "" if credential.id else self.find_address(request)
        return make_headers(self._limits.describe(credential, address))

    def name_client(self, request: Request, credential: Credential) -> str:
        """Return the name of a client in tables: of its credential, or of its network."""
        return credential.id or self._find_network(request)

    async def _authenticate(self, request: Request, scopes: tuple[str, ...]) -> Credential:
        credential = await self._identify(request)
        if credential is not None:
            request.ctx.credential_name = credential.name  # for the audit trail
        if credential is not None and not credential.scopes.isdisjoint(scopes):
            return credential
        # A valid credential passes, whatever its address sends: clients of a proxy share one.
        self._charge_failure(self._find_network(request))
        if credential is not None and credential.id:
            raise Problem(403, f"This token has no right to {scopes[0]} usages.")
        raise Problem(
            401,
            "The request has no valid token. Send `Authorization: Bearer <token>`.",
            {"WWW-Authenticate": 'Bearer realm="busyapi"'},
        )

    def _charge_failure(self, network: str) -> None:
        if seconds := self._failure_limiter.charge(network, 1):
            raise self._refuse_network(network, seconds)

    def _check_before_signature(self, request: Request) -> None:
        """Refuse a JWT from an address that has used up its failures, before it is verified.

        This bounds what forged JWTs cost. Tokens of the file, which cost less than the rest of a
        request, and remembered JWTs pass in any case. What may starve: a JWT that is not remembered
        yet, while another client of its address, such as one behind the same NAT, sends failures.
        Only failures are charged, so it passes in the first moment after each refill.

        Without BUSYAPI_TRUSTED_PROXIES the address may be that of a proxy, and one stranger could
        lock out all clients. The same holds for a trusted proxy that names no client. There each
        JWT is verified.
        """
        address = self.find_address(request)
        if not self._proxies or self._proxies.includes(address):
            return
        network = client_network(address)
        level = self._failure_limiter.read_level(network)
        if level < 1:
            raise self._refuse_network(network, (1 - level) / FAILURE_RATE)

    def _refuse_network(self, network: str, seconds: float) -> Problem:
        self._log_refused(network)
        return _too_many_requests(
            "Too many requests from this address had no valid credential, or lacked its scope."
            " Wait, then send one that has both.",
            seconds,
        )

    async def _identify(self, request: Request) -> Credential | None:
        """Return the credential of a request; None if it has one that is invalid."""
        authenticator = self.authenticator
        if authenticator is None:
            return self.anonymous
        values = request.headers.getall("authorization", [])
        if len(values) > 1:
            return None  # a proxy could have checked another one
        try:
            if values:
                # Sanic decodes invalid UTF-8 to surrogates.
                return await authenticator.authenticate(
                    values[0].encode(errors="surrogateescape"),
                    partial(self._check_before_signature, request),
                )
            names = self._read_certificate(request)
            return self.anonymous if names is None else authenticator.find_certificate(names)
        except InvalidCredential:
            return None
        except CredentialKeysUnavailable:
            self._charge_failure(self._find_network(request))
            raise

    def _read_certificate(self, request: Request) -> list[CertificateName] | None:
        if self._certificates is None:
            return None
        return self._certificates.read_names(
            str(request.ip), lambda name: request.headers.getall(name, [])
        )

    async def _charge(
        self, request: Request, credential: Credential, cost: int, *, already_charged: int = 0
    ) -> None:
        if not self.is_limited(credential):
            return
        address = "" if credential.id else self.find_address(request)
        excess = await self._limits.charge(
            credential, address, cost, already_charged=already_charged
        )
        if excess:
            raise self._refuse(request, credential, excess)

    def _refuse(self, request: Request, credential: Credential, excess: Excess) -> "OverRate":
        self._limits.record_refusal(excess.policy)
        described = self._limits.describe(credential, self.find_address(request))
        return OverRate(excess, make_headers(described, excess))

    def find_address(self, request: Request) -> str:
        """Return the address of the client, behind trusted proxies."""
        forwarded_for = request.headers.getall("x-forwarded-for", [])
        return self._proxies.find_client(str(request.ip), forwarded_for)

    def _find_network(self, request: Request) -> str:
        return client_network(self.find_address(request))

    def _log_refused(self, address: str) -> None:
        now = monotonic()
        self._unlogged_count += 1
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            log.warning("credentials_refused", address=address, requests=self._unlogged_count)
            self._logged_at, self._unlogged_count = now, 0


class OverRate(Problem):
    """The 429 of a client that exceeds a limit."""

    def __init__(self, excess: Excess, headers: dict[str, str]) -> None:
        owner = "The tenant of this device" if excess.policy == TENANT else "This device"
        retry = {"Retry-After": str(excess.retry_after)}
        super().__init__(429, f"{owner} exceeds its rate limit.", retry | headers)
        self.excess = excess


def _too_many_requests(detail: str, seconds: float) -> Problem:
    return Problem(429, detail, {"Retry-After": str(max(1, ceil(seconds)))})
