"""An issuer of JWTs with keys of its own, also of tokens that no honest issuer would make."""

import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from testkit.api_client import USAGE

ISSUER, AUDIENCE = "https://issuer.example", "busyapi"
ALGORITHMS = RSA, PSS, EC, EDDSA = ("RS256", "PS256", "ES256", "EdDSA")
PATIENT = USAGE["patientId"]

_KINDS: dict[str, Any] = {
    RSA: RSAAlgorithm,
    PSS: RSAAlgorithm,
    EC: ECAlgorithm,
    EDDSA: OKPAlgorithm,
}


def generate_key(algorithm: str, bits: int = 2048) -> Any:
    """Return a new private key."""
    if algorithm in {RSA, PSS}:
        return rsa.generate_private_key(65537, bits)
    if algorithm == EC:
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


class Issuer:
    """A private key of each algorithm; the id of a key is the name of its algorithm."""

    def __init__(self, *algorithms: str) -> None:
        self.keys = {name: generate_key(name) for name in algorithms or ALGORITHMS}

    def settings(self, keys: str) -> dict[str, str]:
        """Return the settings of a process that accepts its tokens."""
        return {
            "BUSYAPI_JWT_KEYS": keys,
            "BUSYAPI_JWT_ISSUER": ISSUER,
            "BUSYAPI_JWT_AUDIENCE": f"another,{AUDIENCE}",
            "BUSYAPI_JWT_LEEWAY": "2",
        }

    def key_set(self) -> str:
        """Return the public keys as a JSON Web Key Set."""
        return json.dumps({"keys": [self.public_key(name) for name in self.keys]})

    def public_key(self, name: str) -> dict[str, Any]:
        """Return a public key as a JSON Web Key."""
        key: dict[str, Any] = _KINDS[name].to_jwk(self.keys[name].public_key(), as_dict=True)
        key.pop("key_ops", None)
        return key | {"kid": name, "alg": name, "use": "sig"}

    def issue(
        self,
        algorithm: str = RSA,
        *,
        header: dict[str, Any] | None = None,
        key: Any = None,
        **claims: Any,
    ) -> str:
        """Return a token that may write; a claim of None is left out."""
        token = jwt.encode(
            make_claims(**claims),
            key or self.keys[algorithm],
            algorithm,
            {"kid": algorithm, **(header or {})},
        )
        return str(token)


def make_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token with changes."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "device-7",
        "client_id": "clinic",
        "scope": "write",
        "iat": now,
        "exp": now + 3600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def encode_part(content: Any) -> str:
    """Return one part of a token: JSON in base64 without padding."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
