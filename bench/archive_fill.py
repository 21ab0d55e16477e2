"""Make an archive of realistic usages with the archive's own writer.

Both kinds of patientId, the four spellings of a time, and nested members in a part of the usages.
"""

import json
import random
from datetime import timedelta
from pathlib import Path

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.format import UsageBatch
from busyapi.archive.writer import PartitionWriter
from busyapi.ids import Seq
from perf.bodies import DAY, MEDICATIONS, START, spell_time

DAYS = 7
BATCH = 1000
BATCHES_PER_BLOCK = 8
NUMBER_SHARE = 0.2
"""The share of patients whose id is a number."""
EXTRA_SHARE = 0.25
"""The share of usages with further members."""

FIRMWARE = ("2.0.11", "2.1.3", "2.1.4")


def make_usage(chance: random.Random, patients: int, share_of_time: float) -> bytes:
    """Return one usage as the service stores it."""
    patient = chance.randrange(patients)
    seconds = DAYS * DAY * share_of_time - chance.expovariate(1 / 600)
    usage: dict[str, object] = {
        "patientId": patient if patient < NUMBER_SHARE * patients else f"{patient:06d}",
        "timestamp": chance.choice(spell_time(START + timedelta(seconds=int(seconds)))),
        "medication": chance.choice(MEDICATIONS),
    }
    if chance.random() < EXTRA_SHARE:
        usage["device"] = {
            "serial": f"{patient * 2_654_435_761 % 2**40:010x}",
            "battery": chance.randrange(100),
            "firmware": chance.choice(FIRMWARE),
        }
    return json.dumps(usage, separators=(",", ":")).encode()


def fill_archive(root: Path, usages: int, *, partitions: int = 2, patients: int = 50_000) -> None:
    """Write an archive; the last segment of the last partition stays open."""
    chance = random.Random(1)  # noqa: S311 - no secret
    start_ms = int(START.timestamp() * 1000)
    for partition in range(partitions):
        config = ArchiveConfig(
            root,
            partition,
            partitions,
            bound=1_000_000,
            segment_bytes=1 << 24,
            segment_age=1e9,
            retention_days=0,
        )
        writer = PartitionWriter.recover(config)
        share = usages // partitions
        while writer.cursor < share:
            batches: list[UsageBatch] = []
            seq = writer.cursor + 1
            for _ in range(BATCHES_PER_BLOCK):
                last = min(share, seq + BATCH - 1)
                if seq > last:
                    break
                received = start_ms + int(DAYS * DAY * 1000 * last / share)
                lines = [make_usage(chance, patients, last / share) for _ in range(seq, last + 1)]
                batches.append(UsageBatch(Seq(seq), Seq(last), received, lines))
                seq = last + 1
            writer.append(batches)
            writer.roll_if_due()
        writer.close(finish=partition < partitions - 1)
