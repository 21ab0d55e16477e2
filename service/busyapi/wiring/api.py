"""Builds the API from settings."""

from busyapi.api.app import serve
from busyapi.api.archive_client import ArchiveClient
from busyapi.api.context import ApiContext
from busyapi.api.cors import parse_origins
from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl
from busyapi.commit.pool import CommitterPool
from busyapi.settings import Settings
from busyapi.stream.reader import PartitionReader
from busyapi.telemetry.metrics import ApiMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.wiring.auth import make_authorizer
from busyapi.wiring.redis import make_endpoint


def run_api(settings: Settings) -> int:
    """Run an API process. Return its exit code."""
    endpoint = make_endpoint(settings)
    metrics = ApiMetrics(settings.durability)
    admission = AdmissionControl(settings.pending_max, settings.pending_bytes)
    partitions = range(settings.partitions)
    committers = [
        Committer(
            endpoint,
            partition,
            settings.partitions,
            tier=settings.durability,
            replicas=settings.replicas,
            deadline=settings.commit_deadline,
            admission=admission,
            observer=metrics,
        )
        for partition in partitions
    ]
    authorizer, reload = make_authorizer(settings, metrics)
    max_body = max(settings.max_body, settings.max_batch_bytes)
    context = ApiContext(
        settings=settings,
        committers=CommitterPool(committers, admission),
        readers=[PartitionReader(endpoint, partition) for partition in partitions],
        archive=ArchiveClient(settings.flusher_urls, settings.partitions),
        metrics=metrics,
        authorizer=authorizer,
        reload=reload,
        cors=parse_origins(settings.cors_origins),
        budget=ReceiveBudget(max(settings.receiving_bytes, 2 * max_body)),
    )
    return serve(context)
