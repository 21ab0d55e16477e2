"""JWTs of one provider: the verifier for its current keys, which change while the process runs."""

from collections.abc import Callable

from busyapi.auth.credential import Credential
from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.jwt_verifier import JwtVerifier, UnknownKey
from busyapi.auth.key_set import KeySet
from busyapi.auth.key_source import KeySource
from busyapi.errors import CredentialKeysUnavailable


class JwtAuthenticator:
    """Verifies the JWTs of a provider. `record_signature` gets each signature's result."""

    def __init__(
        self,
        rules: ClaimRules,
        source: KeySource,
        record_signature: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._rules = rules
        self._source = source
        self._record_signature = record_signature
        self._verifier: JwtVerifier | None = None
        self._had_keys = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a token that was valid may no longer be."""
        source.on_change = self._replace_keys

    @property
    def problem(self) -> str:
        """Return why this process has never been able to verify a token, or ""."""
        return "" if self._had_keys else "the keys for JWTs were not fetched yet"

    async def verify(self, token: bytes) -> Credential:
        """Return the credential of a token.

        Raises:
            CredentialKeysUnavailable: there are no keys.
            InvalidCredential: the token is not valid.
        """
        try:
            return self._require_verifier().verify(token)
        except UnknownKey:
            if not await self._source.refresh_for_unknown_key():
                raise
        return self._require_verifier().verify(token)

    def _require_verifier(self) -> JwtVerifier:
        if self._verifier is None:
            raise CredentialKeysUnavailable
        return self._verifier

    def _replace_keys(self, keys: KeySet | None) -> None:
        self._verifier = JwtVerifier(self._rules, keys, self._record_signature) if keys else None
        self._had_keys = self._had_keys or keys is not None
        self.on_change()
