"""Realistic batches: many patients, several medications, no two equal usages."""

import json
import random
from datetime import timedelta

from perf.bodies import DAY, MEDICATIONS, START
from perf.load import Load

PATIENTS = 1_000_000


def make_usages(seed: int, count: int) -> list[dict[str, str]]:
    """Return usages. Equal seeds give equal usages."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [
        {
            "patientId": str(chance.randrange(PATIENTS)),
            "timestamp": (START + timedelta(seconds=chance.randrange(DAY))).isoformat(),
            "medication": chance.choice(MEDICATIONS),
        }
        for _ in range(count)
    ]


def make_batch(seed: int, count: int) -> Load:
    """Return one batch of usages."""
    body = json.dumps(make_usages(seed, count), separators=(",", ":"))
    return Load(f"realistic-{seed}", "/api/usages/batch", count, body)
