"""The requests of a load client and their outcomes, for the checker.

A digest identifies each payload. A payload is sent in one request only, so a digest that is twice
in the archive was stored twice.
"""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a client can conclude from the answer to a request."""

    OK = "acknowledged"
    """201: every usage in the request is stored once."""
    REFUSED = "refused"
    """Not stored: a 4xx, or a 503 with stored `no`."""
    UNKNOWN = "unknown"
    """Stored once or not at all: no complete answer, or any other 5xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, with all its retries under one Idempotency-Key."""

    digests: tuple[bytes, ...]
    """Of the usages, in order."""
    outcome: Outcome
    ids: tuple[int, ...] = ()
    """From a 201, in the same order."""
    status: int = 0
    """Of the last answer; 0 without an answer."""
    sent: float = 0.0
    """Monotonic time before its first byte was sent."""
    answered: float = 0.0
    """Monotonic time after its last answer was read."""
    writer: str = ""
    """The writer in the stamp that its usages must have in the archive, "" for no stamp."""


@dataclass
class History:
    """All requests of one run. Several clients can share one history."""

    requests: list[Request] = field(default_factory=list)
    usages: Counter[Outcome] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, request: Request) -> None:
        """Record a request that has ended."""
        self.requests.append(request)
        self.usages[request.outcome] += len(request.digests)
        self.statuses[request.status] += 1

    @property
    def acknowledged(self) -> int:
        """The number of usages that were answered with an id."""
        return self.usages[Outcome.OK]

    def count_acknowledged(self, sent_after: float, answered_before: float = math.inf) -> int:
        """Return how many usages were sent and acknowledged between two monotonic times."""
        return sum(
            len(request.digests)
            for request in tuple(self.requests)
            if request.outcome is Outcome.OK
            and sent_after < request.sent
            and request.answered < answered_before
        )

    def __str__(self) -> str:
        outcomes = ", ".join(f"{self.usages[outcome]} {outcome}" for outcome in Outcome)
        statuses = ", ".join(f"{n} x {code or 'none'}" for code, n in sorted(self.statuses.items()))
        return f"{len(self.requests)} requests ({statuses}): usages {outcomes}"


def digest(usage: Any) -> bytes:
    """Return the digest of a usage. Equal JSON values have equal digests."""
    canonical = json.dumps(usage, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()
