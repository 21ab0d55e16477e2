"""Batches that look like a real day's: many patients, several medications, no two usages alike."""

import json
import random
from datetime import timedelta

from perf.bodies import DAY, MEDICATIONS, START
from perf.load import Load

PATIENTS = 1_000_000


def usages(seed: int, count: int) -> list[dict[str, str]]:
    """Make usages, the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [
        {
            "patientId": str(chance.randrange(PATIENTS)),
            "timestamp": (START + timedelta(seconds=chance.randrange(DAY))).isoformat(),
            "medication": chance.choice(MEDICATIONS),
        }
        for _ in range(count)
    ]


def batch(seed: int, count: int) -> Load:
    """Make one batch of them."""
    body = json.dumps(usages(seed, count), separators=(",", ":"))
    return Load(f"realistic-{seed}", "/api/usages/batch", count, body)
