"""Verifies JWTs (RFC 7519, RFC 9068, and RFC 8725 for what must not be done).

The key of a token is one of the provider's, chosen by the id and the algorithm of its header. A key
or an address in a token (jwk, jku, x5c, x5u) is never used. Algorithms are public-key signatures.

    size ─> form ─> header ─> key ─> claims, quickly ─> signature ─> claims ─> Credential

The signature costs several times as much as all before it. So a token that has expired or is for
another service is refused without it. No claim is used before it is verified.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from time import time
from typing import Any, NamedTuple

import jwt

from busyapi.auth.credential import Credential
from busyapi.auth.jwt_claims import ClaimRules, make_credential, may_be_valid
from busyapi.auth.key_set import ALGORITHMS, MAX_KEY_ID_LENGTH, KeySet, PublicKey
from busyapi.errors import InvalidCredential

MAX_TOKEN_BYTES = 6144
HEADER_CACHE_SIZE = 64
"""Headers of valid tokens. All tokens of a provider have the same few."""

# Base64 without padding, and without bits that are not used: there is one text for each token.
_PART = r"(?:[\w-]{4})*+(?:[\w-][AQgw]|[\w-]{2}[AEIMQUYcgkosw048])?"
_TOKEN = re.compile(rf"({_PART})\.({_PART})\.{_PART}", re.ASCII)
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
_ALGORITHMS = {name for names in ALGORITHMS.values() for name in names}


class UnknownKey(InvalidCredential):
    """The provider has not published the key of this token."""


class SigningKey(NamedTuple):
    """The algorithm of a header, and the key for it."""

    algorithm: str
    key: PublicKey
    has_id: bool


class JwtVerifier:
    """Verifies tokens with one set of keys. `record_signature` gets each signature's result."""

    def __init__(
        self,
        rules: ClaimRules,
        keys: KeySet,
        record_signature: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._record_signature = record_signature
        self._headers: dict[str, SigningKey] = {}

    def verify(self, token: bytes) -> Credential:
        """Return the credential of a token.

        Raises:
            UnknownKey: its key is not in the set.
            InvalidCredential: the token is not valid.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidCredential
        text = token.decode("latin-1")
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise InvalidCredential
        header, payload = match.groups()
        signing_key = self._headers.get(header) or self._find_key(header)
        rules = self._rules
        if not may_be_valid(rules, _parse_part(payload), time()):
            raise InvalidCredential
        credential, is_signed = None, True
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                signing_key.key,
                algorithms=[signing_key.algorithm],
                audience=rules.audiences,
                issuer=rules.issuer,
                leeway=rules.leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
            credential = make_credential(rules, claims)
        except jwt.InvalidSignatureError:
            is_signed = False
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            pass
        self._record_signature(is_signed)
        if credential is not None:
            self._cache_header(header, signing_key)
            return credential
        # Not in the handlers: their errors have the token. A header without an id does not say
        # that the key is another one now.
        raise InvalidCredential if is_signed or signing_key.has_id else UnknownKey

    def _find_key(self, header: str) -> SigningKey:
        algorithm, key_id = _parse_header(header)
        key = self._keys.find(key_id, algorithm)
        if key is None:
            raise UnknownKey
        return SigningKey(algorithm, key, key_id is not None)

    def _cache_header(self, header: str, signing_key: SigningKey) -> None:
        if header not in self._headers:
            if len(self._headers) >= HEADER_CACHE_SIZE:
                self._headers.clear()
            self._headers[header] = signing_key


def _parse_header(header: str) -> tuple[str, str | None]:
    """Return the algorithm and the key's id of a header."""
    members = _parse_part(header)
    if not isinstance(members, dict):
        raise InvalidCredential
    algorithm, key_id, kind = (members.get(name) for name in ("alg", "kid", "typ"))
    is_valid = (
        isinstance(algorithm, str)
        and algorithm in _ALGORITHMS
        and (key_id is None or (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID_LENGTH))
        and (kind is None or (isinstance(kind, str) and kind.lower() in _TYPES))
        and "crit" not in members
        and "b64" not in members
    )
    if not is_valid:
        raise InvalidCredential
    return str(algorithm), key_id


def _parse_part(part: str) -> Any:
    """Return the JSON of a part, None if it is not JSON."""
    try:
        return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
