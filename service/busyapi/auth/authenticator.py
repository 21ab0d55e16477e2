"""Verifies the credentials of requests, and remembers those that were valid.

    Authorization ──> remembered? ──> Credential
                          └─ no ──> a token of the file? ──> Credential, remembered
                                        └─ no ──> a valid JWT? ──> Credential, remembered
                                                      └─ no ──> InvalidCredential

A credential is remembered by the bytes of its header until it expires or the configuration changes.
So the fast path needs one lookup, and an invalid credential cannot fill the memory. Only
`Bearer <token>` in this spelling is remembered: others are verified each time, so that one token
has one entry.

The digest of an unknown token is looked up in a table of digests: how long that takes depends on no
token. The remembered bytes are compared only if their hashes, with this process's secret, are
equal.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING

from busyapi.auth.client_certificate import CertificateName
from busyapi.auth.credential import Credential
from busyapi.auth.token_file import CredentialFile
from busyapi.errors import InvalidCredential

if TYPE_CHECKING:
    # Its libraries take 10 MiB, so only a process with JWTs loads it.
    from busyapi.auth.jwt_authenticator import JwtAuthenticator

JWT_DOTS = 2
"""A JWT has three parts."""
MAX_REMEMBERED_BYTES = 33_554_432
"""Over this, the credential that was remembered first is verified again at its next request."""
ENTRY_BYTES = 200
"""What the table takes for an entry, with its key's object."""


class Authenticator:
    """The credentials of one process."""

    def __init__(
        self,
        file: CredentialFile | None = None,
        jwt: "JwtAuthenticator | None" = None,
        *,
        tenant_rate: float = 0.0,
    ) -> None:
        self._file = file or CredentialFile()
        self._tenant_rate = tenant_rate
        self._jwt = jwt
        if jwt:
            jwt.on_change = self.forget_all
        self._remembered: OrderedDict[bytes, Credential] = OrderedDict()
        self._remembered_bytes = 0

    @property
    def problem(self) -> str:
        """Return why this process is not ready to verify credentials, or ""."""
        return self._jwt.problem if self._jwt else ""

    def replace_file(self, file: CredentialFile) -> None:
        """Use other credentials from now on: those that are gone are refused at once."""
        self._file = file
        self.forget_all()

    def forget_all(self) -> None:
        """Verify every credential again."""
        self._remembered.clear()
        self._remembered_bytes = 0

    def recall(self, authorization: bytes) -> Credential | None:
        """Return the credential of an Authorization header that was verified before, or None."""
        credential = self._remembered.get(authorization)
        if credential is None or credential.expires_at > time():
            return credential
        del self._remembered[authorization]
        self._remembered_bytes -= len(authorization) + ENTRY_BYTES
        return None

    async def authenticate(
        self, authorization: bytes, before_signature: Callable[[], None] = lambda: None
    ) -> Credential:
        """Return the credential of an Authorization header.

        `before_signature` is called before a signature is verified, and may raise instead.

        Raises:
            InvalidCredential: it has no valid credential.
            CredentialKeysUnavailable: it has a JWT, and there are no keys to verify it.
        """
        credential = self.recall(authorization)
        if credential is None:
            verified = await self._verify(authorization, before_signature)
            credential = self._add_tenant_rate(verified)
            if credential.expires_at <= time():
                raise InvalidCredential
            if authorization == b"Bearer " + _take_token(authorization):
                self._remember(authorization, credential)
        return credential

    def find_certificate(self, names: Iterable[CertificateName]) -> Credential:
        """Return the credential of a client certificate that a proxy has verified.

        Raises:
            InvalidCredential: none of its names has a credential.
        """
        for name in names:
            credential = self._file.certificates.get(name)
            if credential is not None and credential.expires_at > time():
                return self._add_tenant_rate(credential)
        raise InvalidCredential

    def _add_tenant_rate(self, credential: Credential) -> Credential:
        if not credential.tenant:
            return credential
        rate = self._file.tenants.get(credential.tenant, self._tenant_rate)
        return replace(credential, tenant_rate=rate) if rate else credential

    async def _verify(
        self, authorization: bytes, before_signature: Callable[[], None]
    ) -> Credential:
        token = _take_token(authorization)
        if credential := self._file.tokens.get(sha256(token).digest()):
            return credential
        if self._jwt is None or token.count(b".") != JWT_DOTS:
            raise InvalidCredential
        before_signature()
        return await self._jwt.verify(token)

    def _remember(self, authorization: bytes, credential: Credential) -> None:
        self._remembered[authorization] = credential
        self._remembered_bytes += len(authorization) + ENTRY_BYTES
        while self._remembered_bytes > MAX_REMEMBERED_BYTES:
            oldest, _ = self._remembered.popitem(last=False)
            self._remembered_bytes -= len(oldest) + ENTRY_BYTES


def _take_token(authorization: bytes) -> bytes:
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise InvalidCredential
    return token.strip(b" \t")
