"""Usages as devices send them: many patients, several medications, four formats of a time.

The k6 scripts make the same (k6/lib/bodies.js).
"""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

MEDICATIONS = (
    "Albuterol",
    "Budesonide",
    "Fluticasone",
    "Formoterol",
    "Ipratropium",
    "Salmeterol",
    "Tiotropium",
)
START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = 86_400
INVALID = (
    '{"patientId":"100","medication":"Albuterol"}',
    '{"patientId":"","timestamp":1478009511000,"medication":"Albuterol"}',
    '{"patientId":"100","timestamp":"yesterday","medication":"Albuterol"}',
    '{"patientId":"100","timestamp":1478009511000',
)
"""Bodies that get 4xx: a missing member, an empty one, an invalid time, a truncated body."""


@dataclass(frozen=True)
class Mix:
    """The mix of requests."""

    devices: int = 100_000
    """Patients, each with its own device."""
    invalid: float = 0.01
    """Share of requests that the service must refuse."""


def make_bodies(mix: Mix, count: int, seed: int = 1) -> list[tuple[bytes, bool]]:
    """Return bodies, each with whether it is valid. Equal seeds give equal bodies."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    entries = []
    for _ in range(count):
        valid = chance.random() >= mix.invalid
        text = _usage(mix, chance) if valid else chance.choice(INVALID)
        entries.append((text.encode(), valid))
    return entries


def _usage(mix: Mix, chance: random.Random) -> str:
    at = START + timedelta(seconds=chance.randrange(DAY))
    usage = {
        "patientId": str(chance.randrange(mix.devices)),
        "timestamp": chance.choice(spell_time(at)),
        "medication": chance.choice(MEDICATIONS),
    }
    return json.dumps(usage, separators=(",", ":"))


def spell_time(at: datetime) -> tuple[str | int, ...]:
    """Return a time in each format that the contract accepts."""
    return (
        f"{at:%a %b %d %Y %H:%M:%S} GMT+0000 (UTC)",
        at.isoformat(),
        format_datetime(at, usegmt=True),
        int(at.timestamp() * 1000),
    )
