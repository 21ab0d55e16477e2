"""Batches that look like a real day's: many patients, several medications, no two usages alike."""

import json
import random
from datetime import UTC, datetime, timedelta

from bench.load import Load

MEDICATIONS = (
    "Albuterol",
    "Budesonide",
    "Fluticasone",
    "Formoterol",
    "Ipratropium",
    "Salmeterol",
    "Tiotropium",
)
PATIENTS = 1_000_000
START = datetime(2026, 11, 1, tzinfo=UTC)
SECONDS = 86_400


def usages(seed: int, count: int) -> list[dict[str, str]]:
    """Make usages, the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [
        {
            "patientId": str(chance.randrange(PATIENTS)),
            "timestamp": (START + timedelta(seconds=chance.randrange(SECONDS))).isoformat(),
            "medication": chance.choice(MEDICATIONS),
        }
        for _ in range(count)
    ]


def batch(seed: int, count: int) -> Load:
    """Make one batch of them."""
    body = json.dumps(usages(seed, count), separators=(",", ":"))
    return Load(f"realistic-{seed}", "/api/usages/batch", count, body)
