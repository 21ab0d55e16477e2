"""Sign with an ECDSA P-256 key, in the formats that openssl and cosign verify.

A signature is base64 of an ECDSA signature in DER over SHA-256. For an image or a chart in a
registry the signed content is cosign's "simple signing" JSON, which names the manifest's digest.
"""

import base64
import binascii
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tools.release.errors import ReleaseError

ALGORITHM = ec.ECDSA(SHA256())
NEW_KEY = """Make a key pair once, keep release.key secret and commit release.pub:
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key
    openssl pkey -in release.key -pubout -out release.pub"""


def load_private_key(key: str, password: str | None) -> ec.EllipticCurvePrivateKey:
    """Load a private key from PEM, or from a file with PEM."""
    if not key:
        raise ReleaseError(f"RELEASE_KEY is empty: set it to a private key or its file.\n{NEW_KEY}")
    pem = key.encode() if key.startswith("-----BEGIN") else _read(Path(key))
    try:
        private = load_pem_private_key(pem, password.encode() if password else None)
    except (ValueError, TypeError) as error:
        raise ReleaseError(f"RELEASE_KEY cannot be read: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ReleaseError(f"RELEASE_KEY is not an ECDSA key.\n{NEW_KEY}")
    return private


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Load a public key from its file."""
    try:
        public = load_pem_public_key(_read(path))
    except ValueError as error:
        raise ReleaseError(f"{path} cannot be read: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ReleaseError(f"{path} is not an ECDSA key.\n{NEW_KEY}")
    return public


def check_pair(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> None:
    """Refuse a private key that does not belong to the published public key."""
    if _pem(private.public_key()) != _pem(public):
        raise ReleaseError("RELEASE_KEY does not belong to release.pub: sign with the other key")


def sign(private: ec.EllipticCurvePrivateKey, content: bytes) -> str:
    """Return the signature of the content."""
    return base64.b64encode(private.sign(content, ALGORITHM)).decode()


def verify(public: ec.EllipticCurvePublicKey, content: bytes, signature: str, name: str) -> None:
    """Refuse content that was not signed with the key.

    Raises:
        ReleaseError: content, signature and key do not belong together.
    """
    try:
        public.verify(base64.b64decode(signature, validate=True), content, ALGORITHM)
    except (InvalidSignature, binascii.Error) as error:
        raise ReleaseError(
            f"The signature of {name} does not match: do not use it, and report it"
        ) from error


def simple_signing(reference: str, digest: str) -> bytes:
    """Return cosign's payload for a manifest in a registry."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def _pem(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror}.\n{NEW_KEY}") from error
