"""What a load client asked and was told: one record a request, kept for the checker.

A payload is known by its digest. Every payload is sent under one request only, so that a digest
found twice in the archive was stored twice.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a client may conclude from the end of a request."""

    OK = "acknowledged"
    """201: every usage in it is stored, once."""
    REFUSED = "refused"
    """Not stored: a 4xx, or a 503 that says so."""
    UNKNOWN = "unknown"
    """Stored once or not at all: no whole answer, or a 5xx that does not say `no`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request with all its repeats under one Idempotency-Key."""

    digests: tuple[bytes, ...]
    """What was sent, in order."""
    outcome: Outcome
    ids: tuple[int, ...] = ()
    """What a 201 said, in the same order."""
    status: int = 0
    """The last answer's; 0 is none."""
    sent: float = 0.0
    """Before its first byte was sent, by the monotonic clock."""
    answered: float = 0.0
    """After its last answer was read."""


@dataclass
class History:
    """All requests of one run. Several clients may write to one history."""

    requests: list[Request] = field(default_factory=list)
    usages: Counter[Outcome] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, request: Request) -> None:
        """Write down one request that has ended."""
        self.requests.append(request)
        self.usages[request.outcome] += len(request.digests)
        self.statuses[request.status] += 1

    @property
    def acknowledged(self) -> int:
        """How many usages were answered with an id."""
        return self.usages[Outcome.OK]

    def __str__(self) -> str:
        told = ", ".join(f"{self.usages[each]} {each}" for each in Outcome)
        statuses = ", ".join(f"{n} x {code or 'none'}" for code, n in sorted(self.statuses.items()))
        return f"{len(self.requests)} requests ({statuses}): usages {told}"


def digest(usage: Any) -> bytes:
    """Return a usage's name in the history: the same for the same JSON value."""
    canonical = json.dumps(usage, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()
