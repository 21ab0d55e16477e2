"""Makes the stamps of an installation, and compares credentials with them.

A stamp's writer is an HMAC of the credential's id. So an archive without the salt shows that two
usages have the same writer, but not which credential that is.
"""

import hmac
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from busyapi.auth.credential import Credential
from busyapi.errors import ConfigError
from busyapi.stamp import WRITER_CHARACTERS, Stamp, encode_stamp

MIN_SALT_BYTES = 32
WRITER_BYTES = WRITER_CHARACTERS * 3 // 4
"""96 bits: no two credentials have the same digest, and none can be made to have another's."""
CACHE_SIZE = 10_000


class Stamper:
    """The stamps of credentials, by the salt of the installation."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._encode = lru_cache(maxsize=CACHE_SIZE)(self._encode_uncached)

    def encode(self, credential: Credential) -> bytes:
        """Return a credential's stamp as bytes to put behind each of its usages."""
        # Not by the whole credential: a renewed one has the same stamp.
        return self._encode(credential.id, credential.tenant)

    def _encode_uncached(self, credential_id: str, tenant: str) -> bytes:
        return encode_stamp(Stamp(self._digest(credential_id), tenant))

    def find_writer(self, credential: Credential) -> str:
        """Return the writer in the stamps of a credential's usages."""
        return self._digest(credential.id)

    def _digest(self, credential_id: str) -> str:
        digest = hmac.digest(self._salt, credential_id.encode(), sha256)
        return urlsafe_b64encode(digest[:WRITER_BYTES]).decode()

    def is_writer(self, credential: Credential, stamp: Stamp) -> bool:
        """Return whether a credential posted the usages with this stamp."""
        return hmac.compare_digest(self._digest(credential.id), stamp.writer)


def make_stamper(salt_file: str) -> Stamper | None:
    """Return the stamper of an installation, or None if its usages get no stamps.

    Raises:
        ConfigError: the salt file cannot be read, or its content is too short.
    """
    if not salt_file:
        return None
    try:
        salt = Path(salt_file).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"BUSYAPI_WRITER_SALT_FILE cannot be read: {error}") from None
    if len(salt) < MIN_SALT_BYTES:
        raise ConfigError(
            f"BUSYAPI_WRITER_SALT_FILE must hold at least {MIN_SALT_BYTES} bytes. Make one with"
            " `openssl rand -hex 32`, and keep it: with another one, read:own finds no usage that"
            " was posted before"
        )
    return Stamper(salt)
