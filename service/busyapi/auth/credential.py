"""A verified credential: what the API knows about the sender of a request."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import inf

from busyapi.stamp import MAX_TENANT_CHARACTERS

SCOPES = frozenset({"write", "read", "read:own", "read:tenant", "erase", "admin"})
MAX_TEXT_LENGTH = MAX_TENANT_CHARACTERS
"""Maximum length of a tenant and a patient id, in a file and in a claim: a stamp must hold it."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The sender of a request. Raised errors, logs and metrics may show its name, nothing else."""

    id: str
    """A digest that stays the same while the credential is renewed: the owner of its
    Idempotency-Keys, its rate and its usages. Empty without a credential."""
    name: str
    scopes: frozenset[str]
    tenant: str = ""
    patient_id: str | None = None
    """The only patient whose usages it may send and read. None: any."""
    rate: float = 0.0
    """Usages per second. 0: the default of the installation."""
    tenant_rate: float = 0.0
    """Usages per second of all credentials of the tenant. 0: no limit."""
    expires_at: float = inf
    """Seconds since 1970."""


def make_anonymous(scopes: Iterable[str]) -> Credential:
    """Return what a request without a credential may do."""
    return Credential("", "anonymous", frozenset(scopes))


def make_id(kind: str, *names: str) -> str:
    """Return the id of a credential, from its kind and what names it there."""
    return sha256("\0".join((kind, *names)).encode(errors="surrogatepass")).hexdigest()
