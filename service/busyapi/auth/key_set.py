"""The public keys of a provider of JWTs: a JSON Web Key Set (RFC 7517).

A key has one use: an algorithm of the same kind. So a token cannot have a public RSA key used as
the secret of an HMAC, and a key for encryption verifies nothing. Keys of other kinds are skipped,
because a provider may publish them for other services.
"""

import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from busyapi.errors import ConfigError

MAX_KEYS = 100
MAX_KEY_ID_LENGTH = 256
RSA_BITS = range(2048, 4097)
"""A signature of a larger key takes too long to verify."""
ALGORITHMS = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""The algorithms that a token may have, by the type of a key."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class KeySet:
    """Public keys, by id and algorithm."""

    def __init__(self, keys: Mapping[tuple[str, str], PublicKey]) -> None:
        self.keys = keys

    def has_same_keys(self, other: "KeySet") -> bool:
        """Return whether another set has the same keys with the same ids and algorithms."""
        return self.keys == other.keys

    def __len__(self) -> int:
        return len({id(key) for key in self.keys.values()})

    def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Return the key of a token's header. A token without an id needs a single candidate."""
        if key_id is not None:
            return self.keys.get((key_id, algorithm))
        candidates = [key for (_, use), key in self.keys.items() if use == algorithm]
        return candidates[0] if len(candidates) == 1 else None


def parse_key_set(content: bytes) -> KeySet:
    """Return the usable keys of a JSON Web Key Set.

    Raises:
        ConfigError: it is not one, or has no usable key.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError("the key set is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ConfigError(f"the key set has no `keys` with at most {MAX_KEYS} keys")
    keys: dict[tuple[str, str], PublicKey] = {}
    for entry in entries:
        algorithms = _choose_algorithms(entry)
        key = _parse_key(entry) if algorithms else None
        if key is not None:
            for algorithm in algorithms:
                keys.setdefault((entry.get("kid", ""), algorithm), key)
    if not keys:
        raise ConfigError("the key set has no public key for RS256, PS256, ES256 or EdDSA")
    return KeySet(keys)


def _choose_algorithms(entry: Any) -> tuple[str, ...]:
    """Return the algorithms of a key, none if it cannot be used."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid", ""), str):
        return ()
    if "d" in entry or entry.get("use", "sig") != "sig":
        return ()  # a private key has no place here
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return ()
    kind = entry.get("kty")
    algorithms = ALGORITHMS.get(kind, ()) if isinstance(kind, str) else ()
    return tuple(name for name in algorithms if entry.get("alg", name) == name)


def _parse_key(entry: dict[str, Any]) -> PublicKey | None:
    try:
        # `alg` is checked: PyJWK needs one that fits the type.
        key = PyJWK(entry, ALGORITHMS[entry["kty"]][0]).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    match key:
        case RSAPublicKey() if key.key_size in RSA_BITS:
            return key
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return key
        case Ed25519PublicKey():
            return key
    return None
