"""The two roles, put together from settings."""

from pathlib import Path

from busyapi.api.app import serve
from busyapi.api.archive import ArchiveDoor
from busyapi.api.guard import guard
from busyapi.api.service import Service
from busyapi.archive.writer import PartitionWriter
from busyapi.commit.batch import Admission
from busyapi.commit.lane import Lane
from busyapi.commit.lanes import Lanes
from busyapi.flusher.loop import Flusher
from busyapi.flusher.seed import Install
from busyapi.flusher.serve import Door
from busyapi.metrics import ApiMetrics, FlusherMetrics
from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint, endpoint
from busyapi.stream.partition import Partition
from busyapi.stream.reading import Reader


def redis(settings: Settings) -> Endpoint:
    """Read where Redis is."""
    return endpoint(
        settings.redis_url,
        username=settings.redis_username,
        password=settings.redis_password,
        password_file=settings.redis_password_file,
        ca_file=settings.redis_ca_file,
    )


def api(settings: Settings) -> int:
    """Run an API process; give its exit code."""
    where = redis(settings)
    metrics = ApiMetrics(settings.durability)
    admission = Admission(settings.pending_max, settings.pending_bytes)
    partitions = range(settings.partitions)
    lanes = [
        Lane(
            where,
            each,
            settings.partitions,
            tier=settings.durability,
            deadline=settings.commit_deadline,
            key_seconds=settings.idempotency_ttl,
            admission=admission,
            observer=metrics,
        )
        for each in partitions
    ]
    service = Service(
        settings=settings,
        lanes=Lanes(lanes, admission),
        readers=[Reader(where, each) for each in partitions],
        archive=ArchiveDoor(settings.flusher_urls, settings.partitions),
        metrics=metrics,
        guard=guard(settings.tokens_file, settings.rate_limit),
    )
    return serve(service)


def flusher(settings: Settings, partition: int) -> int:
    """Run a flusher; give its exit code."""
    where = redis(settings)
    metrics = FlusherMetrics(settings.durability, partition)
    install = Install(partition, settings.partitions, settings.bound, settings.durability)

    def recover() -> PartitionWriter:
        return PartitionWriter.recover(
            Path(settings.archive_dir),
            partition,
            settings.partitions,
            bound=settings.bound,
            segment_bytes=settings.segment_bytes,
            segment_age=settings.segment_age,
            retention_days=settings.retention_days,
        )

    def connect(archive_id: str) -> Partition:
        return Partition(where, partition, settings.durability, archive_id)

    return Door(Flusher(install, recover, connect, metrics), metrics).serve(settings.flusher_port)
