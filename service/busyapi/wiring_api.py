"""The API, put together from settings."""

from busyapi.api.app import serve
from busyapi.api.archive import ArchiveDoor
from busyapi.api.cors import cors
from busyapi.api.guard import guard
from busyapi.api.service import Service
from busyapi.commit.batch import Admission
from busyapi.commit.lane import Lane
from busyapi.commit.lanes import Lanes
from busyapi.metrics import ApiMetrics
from busyapi.settings import Settings
from busyapi.stream.reading import Reader
from busyapi.web.budget import Budget
from busyapi.wiring import redis


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
            replicas=settings.replicas,
            deadline=settings.commit_deadline,
            admission=admission,
            observer=metrics,
        )
        for each in partitions
    ]
    largest = max(settings.max_body, settings.max_batch_bytes)
    service = Service(
        settings=settings,
        lanes=Lanes(lanes, admission),
        readers=[Reader(where, each) for each in partitions],
        archive=ArchiveDoor(settings.flusher_urls, settings.partitions),
        metrics=metrics,
        guard=guard(settings.tokens_file, settings.rate_limit),
        cors=cors(settings.cors_origins),
        budget=Budget(max(settings.receiving_bytes, 2 * largest)),
    )
    return serve(service)
