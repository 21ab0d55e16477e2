"""Builds a flusher from settings, without importing the API."""

from pathlib import Path

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.unrecovered_folder import UnrecoveredFolder
from busyapi.audit.writer import AuditWriter
from busyapi.flusher.accept_primary import accept_primary
from busyapi.flusher.archive_port import ArchivePortConfig
from busyapi.flusher.audit import AuditKeeper
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.loop import Flusher
from busyapi.flusher.ownership import PartitionConfig
from busyapi.flusher.page_reader import PageReader
from busyapi.flusher.replicas import ReplicaKeeper
from busyapi.flusher.request_handover import request_handover
from busyapi.flusher.server import FlusherServer
from busyapi.flusher.verifier import Verifier
from busyapi.settings import Settings
from busyapi.stream.partition import OwnedPartition
from busyapi.telemetry.metrics import FlusherMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.web.protocol import ConnectionLimits
from busyapi.web.shared_secret import read_shared_secret
from busyapi.web.tls import make_server_context
from busyapi.wiring.redis import make_servers

DAY_SECONDS = 86_400
MIN_KEY_MARGIN_SECONDS = 60
"""Minimum time that an Idempotency-Key is known after a request's deadline."""


def run_flusher(settings: Settings, partition: int) -> int:
    """Run a flusher. Return its exit code."""
    servers = make_servers(settings)
    endpoint = servers.find(partition)
    metrics = FlusherMetrics(settings.durability, partition)
    metrics.retention_seconds.set(settings.retention_days * DAY_SECONDS)
    config = PartitionConfig(partition, settings.partitions, settings.bound, settings.durability)
    archive_config = ArchiveConfig(
        Path(settings.archive_dir),
        partition,
        settings.partitions,
        bound=settings.bound,
        segment_bytes=settings.segment_bytes,
        segment_age=settings.segment_age,
        retention_days=settings.retention_days,
        format=settings.archive_format,
    )
    folder = UnrecoveredFolder(archive_config)
    replicas = ReplicaKeeper(
        endpoint, archive_config.folder, settings.durability, settings.min_replicas
    )
    if settings.durability == "replicated" and endpoint.key_names(partition).is_decider:
        metrics.replicas_expected.set(settings.replicas)

    def connect(archive_id: str) -> OwnedPartition:
        return OwnedPartition(servers, partition, settings.durability, archive_id)

    # A key must be known for longer than its usage can be retried, or a retry stores it again.
    seconds = max(settings.idempotency_ttl, settings.commit_deadline + MIN_KEY_MARGIN_SECONDS)
    idempotency_keys = IdempotencyKeeper(seconds, settings.idempotency_keys)
    flusher = Flusher(config, folder, connect, metrics, idempotency_keys, replicas=replicas)
    archive_dir = Path(settings.archive_dir)
    verifier = Verifier(archive_dir, partition, settings.verify_interval, flusher, metrics)
    keeper = AuditKeeper(
        AuditWriter(archive_dir, partition, settings.audit_retention_days), metrics
    )
    page_reader = PageReader(archive_dir, partition)
    server = FlusherServer(
        flusher,
        verifier,
        keeper,
        metrics,
        archive=_make_port_config(settings),
        page_reader=page_reader,
    )
    budget = ReceiveBudget(settings.receiving_bytes)
    limits = ConnectionLimits(settings.request_deadline, settings.max_header, budget)
    return server.serve(settings.flusher_port, settings.host, settings.max_connections, limits)


def run_accept_primary(
    settings: Settings, archive_dir: Path, partition: int, *, confirmed: bool
) -> None:
    """Run `busyapi archive accept-primary`; raises as `accept_primary`."""
    endpoint = make_servers(settings).find(partition)
    accept_primary(endpoint, archive_dir, partition, confirmed=confirmed)


def run_hand_over(settings: Settings, partition: int) -> None:
    """Run `busyapi hand-over`; raises as `request_handover`."""
    request_handover(make_servers(settings).find(partition), settings.durability)


def _make_port_config(settings: Settings) -> ArchivePortConfig:
    return ArchivePortConfig(
        settings.archive_port,
        read_shared_secret(settings.archive_secret_file, "BUSYAPI_ARCHIVE_SECRET_FILE"),
        make_server_context(
            settings.archive_cert_file, settings.archive_key_file, settings.archive_client_ca_file
        ),
        bool(settings.archive_client_ca_file),
    )
