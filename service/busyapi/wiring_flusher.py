"""A flusher, put together from settings: it loads nothing of the API."""

from pathlib import Path

from busyapi.archive.volume import Volume
from busyapi.flusher.compare import Install
from busyapi.flusher.keys import KeyKeeper
from busyapi.flusher.loop import Flusher
from busyapi.flusher.serve import Door
from busyapi.metrics import FlusherMetrics
from busyapi.settings import Settings
from busyapi.stream.partition import Partition
from busyapi.web.budget import Budget
from busyapi.web.protocol import Bounds
from busyapi.wiring import redis

KEY_SECONDS = 60
"""The least that an Idempotency-Key is known beyond a request's deadline."""


def flusher(settings: Settings, partition: int) -> int:
    """Run a flusher; give its exit code."""
    where = redis(settings)
    metrics = FlusherMetrics(settings.durability, partition)
    install = Install(partition, settings.partitions, settings.bound, settings.durability)
    volume = Volume(
        Path(settings.archive_dir),
        partition,
        settings.partitions,
        bound=settings.bound,
        segment_bytes=settings.segment_bytes,
        segment_age=settings.segment_age,
        retention_days=settings.retention_days,
    )

    def connect(archive_id: str) -> Partition:
        return Partition(where, partition, settings.durability, archive_id, settings.replicas)

    # A key must outlive the repeats of its own usage, or one of them would store it again.
    seconds = max(settings.idempotency_ttl, settings.commit_deadline + KEY_SECONDS)
    keys = KeyKeeper(seconds, settings.idempotency_keys, settings.partitions)
    made = Flusher(install, volume, connect, metrics, keys)
    door = Door(made, metrics, settings.request_deadline)
    budget = Budget(settings.receiving_bytes)
    bounds = Bounds(settings.request_deadline, settings.max_header, budget)
    return door.serve(settings.flusher_port, settings.max_connections, bounds)
