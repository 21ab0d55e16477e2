"""Builds the credentials of an API process from settings."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from busyapi.api.auth import RequestAuthorizer
from busyapi.api.client_limits import ClientLimits
from busyapi.api.context import BackgroundTask
from busyapi.api.portion_pool import PortionPool
from busyapi.auth.authenticator import Authenticator
from busyapi.auth.client_certificate import ClientCertificates
from busyapi.auth.proxies import TrustedProxies, parse_trusted_proxies
from busyapi.auth.reload import TokenFileWatcher
from busyapi.errors import ConfigError
from busyapi.settings import Settings
from busyapi.telemetry.metrics import ApiMetrics

if TYPE_CHECKING:
    from busyapi.auth.jwt_authenticator import JwtAuthenticator


def make_authorizer(
    settings: Settings, metrics: ApiMetrics, portion_pool: PortionPool
) -> tuple[RequestAuthorizer, list[BackgroundTask]]:
    """Return the authorizer, and what keeps its credentials current.

    Raises:
        ConfigError: the file or a setting is invalid.
    """
    background: list[BackgroundTask] = []
    authenticator = None
    if settings.has_credentials:
        authenticator = _make_authenticator(settings, metrics, background)
    proxies = parse_trusted_proxies(settings.trusted_proxies)
    authorizer = RequestAuthorizer(
        authenticator,
        anonymous=settings.anonymous_scopes,
        limits=ClientLimits(portion_pool, settings.rate_limit, _count_refusals(metrics)),
        proxies=proxies,
        certificates=_make_certificates(settings, proxies),
    )
    return authorizer, background


def _count_refusals(metrics: ApiMetrics) -> Callable[[str], None]:
    return lambda policy: metrics.rate_limited[policy].inc()


def _make_certificates(settings: Settings, proxies: TrustedProxies) -> ClientCertificates | None:
    if not settings.client_certificates:
        return None
    if not settings.tokens_file:
        raise ConfigError(
            "BUSYAPI_CLIENT_CERTIFICATES needs BUSYAPI_TOKENS_FILE, with a table"
            " [certificates.NAME] for each certificate"
        )
    return ClientCertificates(settings.client_certificates, proxies)


def _make_authenticator(
    settings: Settings, metrics: ApiMetrics, background: list[BackgroundTask]
) -> Authenticator:
    watcher = TokenFileWatcher(settings.tokens_file) if settings.tokens_file else None
    file = watcher.load() if watcher else None
    jwt = _make_jwt(settings, metrics, background) if settings.jwt_keys else None
    authenticator = Authenticator(file, jwt, tenant_rate=settings.tenant_rate_limit)
    if watcher:
        watcher.on_failure = metrics.credential_reload_failures["file"].inc
        background.append(partial(watcher.run, authenticator))
    return authenticator


def _make_jwt(
    settings: Settings, metrics: ApiMetrics, background: list[BackgroundTask]
) -> "JwtAuthenticator":
    # Their libraries take 10 MiB and a part of the start, so only a process with JWTs loads them.
    from busyapi.auth.jwt_authenticator import JwtAuthenticator  # noqa: PLC0415
    from busyapi.auth.jwt_claims import ClaimRules, parse_required_claims  # noqa: PLC0415
    from busyapi.auth.key_source import make_key_source  # noqa: PLC0415

    rules = ClaimRules(
        issuer=settings.jwt_issuer,
        audiences=_split(settings.jwt_audience),
        required=parse_required_claims(settings.jwt_required_claims),
        leeway=settings.jwt_leeway,
        scopes=_split(settings.jwt_scope_claims),
        scope_prefix=settings.jwt_scope_prefix,
        tenant=settings.jwt_tenant_claim,
        patient=settings.jwt_patient_claim,
        rate=settings.jwt_rate_claim,
    )
    source = make_key_source(
        settings.jwt_keys,
        ca_file=settings.jwt_ca_file,
        refresh_seconds=settings.jwt_refresh,
        keep_seconds=settings.jwt_keep_keys,
    )
    source.on_failure = metrics.credential_reload_failures["keys"].inc
    background.append(source.run)
    signatures = metrics.jwt_signatures
    return JwtAuthenticator(
        rules,
        source,
        lambda is_valid: signatures["valid" if is_valid else "invalid"].inc(),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))
