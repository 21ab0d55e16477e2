"""Builds the API from settings."""

import socket

from busyapi.api.app import serve
from busyapi.api.archive_client import ArchiveClient
from busyapi.api.audit import AuditTrail
from busyapi.api.audit_sender import EntrySender
from busyapi.api.auth import RequestAuthorizer
from busyapi.api.context import ApiContext
from busyapi.api.cors import parse_origins
from busyapi.api.portion_pool import PortionPool
from busyapi.api.stamper import make_stamper
from busyapi.api.usage_finder import UsageFinder
from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl
from busyapi.commit.pool import CommitterPool
from busyapi.settings import Settings
from busyapi.stream.rate_buckets import RateBuckets
from busyapi.stream.reader import PartitionReader
from busyapi.telemetry.metrics import ApiMetrics
from busyapi.web.budget import ReceiveBudget
from busyapi.web.shared_secret import read_shared_secret
from busyapi.web.tls import make_client_context
from busyapi.wiring.auth import make_authorizer
from busyapi.wiring.redis import make_servers


def run_api(settings: Settings, sock: socket.socket, metrics_socket: socket.socket) -> int:
    """Run an API process on two bound sockets. Return its exit code."""
    servers = make_servers(settings)
    metrics = ApiMetrics(settings.durability)
    admission = AdmissionControl(settings.pending_max, settings.pending_bytes)
    partitions = range(settings.partitions)
    committers = [
        Committer(
            servers.find(partition),
            partition,
            settings.partitions,
            tier=settings.durability,
            min_replicas=settings.min_replicas,
            deadline=settings.commit_deadline,
            admission=admission,
            observer=metrics,
        )
        for partition in partitions
    ]
    buckets = [RateBuckets(servers.find(partition), partition) for partition in partitions]

    def open_reader(partition: int) -> PartitionReader:
        return PartitionReader(servers.find(partition), partition)

    portion_pool = PortionPool(buckets, metrics.rate_withdrawal_failures.inc)
    authorizer, background = make_authorizer(settings, metrics, portion_pool)
    max_body = max(settings.max_body, settings.max_batch_bytes)
    archive = _make_archive_client(settings)
    context = ApiContext(
        settings=settings,
        committers=CommitterPool(committers, admission),
        finder=UsageFinder(open_reader, settings.partitions),
        archive=archive,
        metrics=metrics,
        authorizer=authorizer,
        portion_pool=portion_pool,
        background=[*background, portion_pool.run],
        audit=_make_audit_trail(settings, archive, metrics, authorizer),
        stamper=make_stamper(settings.writer_salt_file),
        cors=parse_origins(settings.cors_origins),
        budget=ReceiveBudget(max(settings.receiving_bytes, 2 * max_body)),
    )
    return serve(context, sock, metrics_socket)


def _make_archive_client(settings: Settings) -> ArchiveClient:
    tls = None
    if "https://" in settings.flusher_urls:
        tls = make_client_context(
            settings.archive_ca_file,
            settings.archive_client_cert_file,
            settings.archive_client_key_file,
        )
    secret = read_shared_secret(settings.archive_secret_file, "BUSYAPI_ARCHIVE_SECRET_FILE")
    return ArchiveClient(settings.flusher_urls, settings.partitions, secret, tls)


def _make_audit_trail(
    settings: Settings, archive: ArchiveClient, metrics: ApiMetrics, authorizer: RequestAuthorizer
) -> AuditTrail | None:
    mode = settings.audit
    if mode == "auto":
        mode = "off" if "read" in authorizer.anonymous.scopes else "required"
    if mode == "off":
        return None
    senders = [
        EntrySender(
            archive,
            partition,
            metrics.audit_dropped.inc,
            metrics.make_delivery_counter(partition),
        )
        for partition in range(settings.partitions)
    ]
    return AuditTrail(senders, authorizer.find_address, required=mode == "required")
