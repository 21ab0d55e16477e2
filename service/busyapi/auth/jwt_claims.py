"""The rules for the claims of a JWT, and the credential that they make.

No claim is logged or returned but the client application's, within the name of the credential. A
subject may be a patient, so the name has a digest of it:

    jwt:clinic-app/3f9c0d21ab47
        client     subject

Only such a name has a colon: no client can have the name of a token, or of requests without one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from busyapi.auth.credential import MAX_TEXT_LENGTH, SCOPES, Credential, make_id
from busyapi.errors import ConfigError, InvalidCredential

NAME_CLAIMS = ("client_id", "azp", "appid")
"""Claims that name the application, in RFC 9068, OpenID Connect and Entra ID."""

MAX_CLIENT_LENGTH = 64
"""Maximum length of a client within a name."""
NAME_DIGITS = 12
"""Digits of a subject's digest within a name."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class ClaimRules:
    """What a token must claim, and which claims are used."""

    issuer: str
    audiences: tuple[str, ...]
    required: Mapping[str, str | None] = field(default_factory=dict)
    """Claims that must be there, some with a value."""
    leeway: float = 30.0
    """Seconds by which the clocks may differ."""
    scopes: tuple[str, ...] = ("scope", "scp")
    scope_prefix: str = ""
    tenant: str = "tenant"
    patient: str = "patient"
    rate: str = "rate"

    def __post_init__(self) -> None:
        """Check that a token for another service cannot be used.

        Raises:
            ConfigError: issuer or audience is missing.
        """
        if not self.issuer or not self.audiences:
            raise ConfigError(
                "BUSYAPI_JWT_KEYS needs BUSYAPI_JWT_ISSUER and BUSYAPI_JWT_AUDIENCE: without them,"
                " tokens for other services would be accepted"
            )


def parse_required_claims(text: str) -> dict[str, str | None]:
    """Parse BUSYAPI_JWT_REQUIRED_CLAIMS: `name` or `name=value`, separated by commas."""
    claims: dict[str, str | None] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, equals, value = entry.partition("=")
        claims[name.strip()] = value.strip() if equals else None
    return claims


def may_be_valid(rules: ClaimRules, claims: object, now: float) -> bool:
    """Return False for claims whose token is refused in any case, whatever its signature is."""
    if not isinstance(claims, dict) or claims.get("iss") != rules.issuer:
        return False
    try:
        expires_at = int(claims["exp"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    audiences = _as_list(claims.get("aud"))
    return expires_at > now - rules.leeway and any(name in rules.audiences for name in audiences)


def make_credential(rules: ClaimRules, claims: Mapping[str, Any]) -> Credential:
    """Return the credential of a token whose signature, issuer, audience and times are valid.

    Raises:
        InvalidCredential: a claim is missing or cannot be understood.
    """
    for name, value in rules.required.items():
        claim = _find(claims, name)
        if claim is None or (value is not None and value not in _as_list(claim)):
            raise InvalidCredential
    client = next((claims[name] for name in NAME_CLAIMS if name in claims), None)
    # A client without a subject is not the subject with the same text.
    kind, subject = ("jwt", claims["sub"]) if "sub" in claims else ("jwt-client", client)
    if not isinstance(subject, str) or not subject:
        raise InvalidCredential
    identity = make_id(kind, rules.issuer, subject)
    return Credential(
        id=identity,
        name=_make_name(client, identity),
        scopes=_read_scopes(rules, claims),
        tenant=_read_text(claims, rules.tenant) or "",
        patient_id=_read_text(claims, rules.patient),
        rate=_read_rate(claims, rules.rate),
        expires_at=int(claims["exp"]) + rules.leeway,
    )


def _make_name(client: object, identity: str) -> str:
    text = client[:MAX_CLIENT_LENGTH] if isinstance(client, str) else ""
    return f"jwt:{_NOT_IN_NAMES.sub('_', text)}/{identity[:NAME_DIGITS]}"


def _find(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by its path such as `realm_access.roles`."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _as_list(claim: Any) -> list[Any]:
    return claim if isinstance(claim, list) else [claim]


def _read_scopes(rules: ClaimRules, claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes of the first claim that is there; scopes of other services are ignored."""
    claim = next((c for c in (_find(claims, name) for name in rules.scopes) if c is not None), "")
    words = claim.split() if isinstance(claim, str) else _as_list(claim)
    prefix = rules.scope_prefix
    names = (
        word.removeprefix(prefix)
        for word in words
        if isinstance(word, str) and word.startswith(prefix)
    )
    return SCOPES.intersection(names)


def _read_text(claims: Mapping[str, Any], name: str) -> str | None:
    claim = _find(claims, name)
    if claim is None:
        return None
    if type(claim) is int:
        claim = str(claim)
    # A limit that is not understood is not ignored.
    if not isinstance(claim, str) or not 1 <= len(claim) <= MAX_TEXT_LENGTH:
        raise InvalidCredential
    try:
        claim.encode()
    except UnicodeEncodeError:  # JSON can write halves of characters, which no usage can hold
        raise InvalidCredential from None
    return claim


def _read_rate(claims: Mapping[str, Any], name: str) -> float:
    claim = _find(claims, name)
    if claim is None:
        return 0.0
    if type(claim) not in {int, float} or not 0 < claim < inf:
        raise InvalidCredential
    return float(claim)
