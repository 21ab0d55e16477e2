"""Make an archive of realistic usages with the archive's own writer.

Both kinds of patientId, the four spellings of a time, and nested members in a part of the usages.
"""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from multiprocessing import get_context
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
SEGMENT_BYTES = 1 << 24
SPELLED_SECONDS = 1 << 14
PATIENTS = 50_000
APPENDED_RATE = 16_667
"""Usages a second: a million a minute."""
APPENDED_SEGMENT_AGE = 15.0

FIRMWARE = ("2.0.11", "2.1.3", "2.1.4")


def make_usage(chance: random.Random, patients: int, share_of_time: float) -> bytes:
    """Return one usage as the service stores it."""
    draw = chance.random
    patient = int(draw() * patients)
    seconds = DAYS * DAY * share_of_time - chance.expovariate(1 / 600)
    identifier = str(patient) if patient < NUMBER_SHARE * patients else f'"{patient:06d}"'
    device = ""
    if draw() < EXTRA_SHARE:
        device = (
            f',"device":{{"serial":"{patient * 2_654_435_761 % 2**40:010x}"'
            f',"battery":{int(draw() * 100)},"firmware":"{FIRMWARE[int(draw() * 3)]}"}}'
        )
    return (
        f'{{"patientId":{identifier},"timestamp":{_spell(int(seconds))[int(draw() * 4)]}'
        f',"medication":"{MEDICATIONS[int(draw() * len(MEDICATIONS))]}"{device}}}'
    ).encode()


@lru_cache(SPELLED_SECONDS)
def _spell(seconds: int) -> tuple[str, ...]:
    return tuple(map(json.dumps, spell_time(START + timedelta(seconds=seconds))))


def fill_archive(root: Path, usages: int, *, partitions: int = 2, patients: int = PATIENTS) -> None:
    """Write an archive; the last segment of the last partition stays open."""
    with ProcessPoolExecutor(partitions, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_fill_partition, root, number, partitions, usages // partitions, patients)
            for number in range(partitions)
        ]
        for job in jobs:
            job.result()


def _fill_partition(root: Path, partition: int, partitions: int, share: int, patients: int) -> None:
    chance = random.Random(partition)  # noqa: S311 - no secret
    start_ms = int(START.timestamp() * 1000)
    writer = _open_writer(root, partition, partitions, segment_age=1e9)
    while writer.cursor < share:
        batches: list[UsageBatch] = []
        seq = writer.cursor + 1
        for _ in range(BATCHES_PER_BLOCK):
            last = min(share, seq + BATCH - 1)
            if seq > last:
                break
            received = start_ms + int(DAYS * DAY * 1000 * last / share)
            lines = [make_usage(chance, patients, last / share) for _ in range(seq, last + 1)]
            batches.append(UsageBatch(Seq(seq), Seq(last), received, b"\n".join(lines)))
            seq = last + 1
        writer.append(batches)
        writer.roll_if_due()
    writer.close(finish=partition < partitions - 1)


def _open_writer(
    root: Path, partition: int, partitions: int, segment_age: float
) -> PartitionWriter:
    config = ArchiveConfig(
        root,
        partition,
        partitions,
        bound=1_000_000,
        segment_bytes=SEGMENT_BYTES,
        segment_age=segment_age,
        retention_days=0,
    )
    return PartitionWriter.recover(config)


@contextmanager
def append_usages(root: Path, partitions: int, seconds: float) -> Iterator[None]:
    """Append usages to the last partition, a block a second, in a process of its own."""
    process = get_context("spawn").Process(target=_append, args=(root, partitions, seconds))
    process.start()
    try:
        yield
    finally:
        process.join()


def _append(root: Path, partitions: int, seconds: float) -> None:
    chance = random.Random(partitions)  # noqa: S311 - no secret
    writer = _open_writer(root, partitions - 1, partitions, APPENDED_SEGMENT_AGE)
    end, due = time.monotonic() + seconds, time.monotonic()
    while due < end:
        lines = [make_usage(chance, PATIENTS, 1.0) for _ in range(APPENDED_RATE)]
        first, last = Seq(writer.cursor + 1), Seq(writer.cursor + APPENDED_RATE)
        writer.append([UsageBatch(first, last, int(time.time() * 1000), b"\n".join(lines))])
        writer.roll_if_due()
        due += 1
        time.sleep(max(0.0, due - time.monotonic()))
    writer.close()
