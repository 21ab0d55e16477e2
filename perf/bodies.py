"""Usages as devices send them: many patients, several medications, four spellings of a time.

The k6 scripts make the same ones (k6/lib/bodies.js).
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
"""Each is refused with a 4xx: a member that is missing, empty, no time; a body that is cut off."""


@dataclass(frozen=True)
class Mix:
    """What is sent."""

    devices: int = 100_000
    """Patients, each with a device of its own."""
    invalid: float = 0.01
    """Share of the requests that must be refused."""


def bodies(mix: Mix, count: int, seed: int = 1) -> list[tuple[bytes, bool]]:
    """Make so many, the same ones for the same seed, each with whether it is valid."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    made = []
    for _ in range(count):
        valid = chance.random() >= mix.invalid
        text = _usage(mix, chance) if valid else chance.choice(INVALID)
        made.append((text.encode(), valid))
    return made


def _usage(mix: Mix, chance: random.Random) -> str:
    at = START + timedelta(seconds=chance.randrange(DAY))
    usage = {
        "patientId": str(chance.randrange(mix.devices)),
        "timestamp": chance.choice(spellings(at)),
        "medication": chance.choice(MEDICATIONS),
    }
    return json.dumps(usage, separators=(",", ":"))


def spellings(at: datetime) -> tuple[str | int, ...]:
    """Write a time in each way that the contract takes."""
    return (
        f"{at:%a %b %d %Y %H:%M:%S} GMT+0000 (UTC)",
        at.isoformat(),
        format_datetime(at, usegmt=True),
        int(at.timestamp() * 1000),
    )
