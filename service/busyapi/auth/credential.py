"""A verified credential: what the API knows about the sender of a request."""

from dataclasses import dataclass
from math import inf

SCOPES = frozenset({"write", "read", "read:own", "read:tenant", "erase", "admin"})


@dataclass(frozen=True, slots=True)
class Credential:
    """The sender of a request. Raised errors, logs and metrics may show its name, nothing else."""

    id: str
    """A digest that stays the same while the credential is renewed: the owner of its
    Idempotency-Keys, its rate and its usages."""
    name: str
    scopes: frozenset[str]
    tenant: str = ""
    patient_id: str | None = None
    """The only patient whose usages it may send. None: any."""
    rate: float = 0.0
    """Usages per second. 0: the default of the installation."""
    expires_at: float = inf
    """Seconds since 1970."""
