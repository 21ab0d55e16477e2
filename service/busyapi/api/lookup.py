"""Handlers of GET /api/usages/{id} and /api/usages/count."""

import asyncio
from time import monotonic

import structlog
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.audit import ReadAudit
from busyapi.api.context import ApiContext, make_handler
from busyapi.api.rate_limit import client_network
from busyapi.api.read_access import READ_SCOPES, is_writer, may_read, reads_all
from busyapi.api.responses import JSON, make_json_response
from busyapi.auth.credential import Credential
from busyapi.errors import NotSeeded, RedisUnavailable, UsageExpired
from busyapi.ids import MAX_ID, Seq, UsageId, split_usage_id
from busyapi.stamp import StampedUsage, split_archived_stamp
from busyapi.stream.reader import BufferedUsage
from busyapi.stream.state import PartitionState
from busyapi.usage_json import render_usage
from busyapi.web.problems import NO_STORE_HEADERS, Problem
from busyapi.web.protocol import request_id_of

log = structlog.get_logger()

MAX_CONFIRM_SECONDS = 3.0
"""More than the flusher takes to archive a usage."""
CONFIRM_INTERVAL_SECONDS = 0.05
NO_SUCH_USAGE = "No usage has this id."


@make_handler
async def get_usage(context: ApiContext, request: Request, usage: int) -> HTTPResponse:
    """Return one usage from Redis or the archive."""
    credential = await context.authorizer.authorize(request, *READ_SCOPES)
    if not 1 <= usage <= MAX_ID:
        raise Problem(404, NO_SUCH_USAGE)
    partition, _ = split_usage_id(UsageId(usage), context.settings.partitions)
    audit = ReadAudit(context.audit, request, credential.name, usage, partition)
    try:
        stamped = await _find_readable(context, credential, audit, UsageId(usage))
    except Problem as problem:
        _record_lookup(context, request, credential, usage)
        await audit.record(problem.status)
        raise
    is_own = is_writer(credential, stamped.stamp, context.stamper)
    if not is_own and credential.patient_id is None:
        _record_lookup(context, request, credential, usage)
    await audit.record(200)
    limits = context.authorizer.limit_headers_of(request, credential)
    return HTTPResponse(stamped.usage, 200, NO_STORE_HEADERS | limits, JSON)


def _record_lookup(
    context: ApiContext, request: Request, credential: Credential, usage: int
) -> None:
    """Count a lookup if its client enumerates ids."""
    client = context.authorizer.name_client(request, credential)
    if context.sequential_lookups.add(client, usage):
        context.metrics.sequential_lookups.inc()
        network = client_network(context.authorizer.find_address(request))
        log.warning("sequential_lookup", credential=credential.name, address=network)


async def _find_readable(
    context: ApiContext, credential: Credential, audit: ReadAudit, usage_id: UsageId
) -> StampedUsage:
    """Return a usage, if the credential may read it.

    Raises:
        Problem: 404 or 410.
        RedisUnavailable, ArchiveUnavailable: the store that may have the usage does not answer.
        AuditUnavailable: as `ArchiveClient.find_line`.
    """
    is_redis_down = False
    try:
        stamped = await _find_buffered(context, usage_id)
    except RedisUnavailable:
        # The archive may have the usage.
        stamped, is_redis_down = None, True
    if stamped is None:
        stamped = await _find_archived(context, credential, audit, usage_id)
    if stamped is None:
        raise RedisUnavailable if is_redis_down else Problem(404, NO_SUCH_USAGE)
    if not may_read(credential, stamped, context.stamper):
        raise Problem(404, NO_SUCH_USAGE)
    return stamped


async def _find_buffered(context: ApiContext, usage_id: UsageId) -> StampedUsage | None:
    partition, seq = split_usage_id(usage_id, context.settings.partitions)
    state, entry = await _find_confirmed(context, partition, seq)
    if entry:
        line = render_usage(usage_id, entry.received_ms, entry.line)
        return StampedUsage(line, entry.stamp)
    if state.seq is not None and seq > state.seq:
        raise Problem(404, NO_SUCH_USAGE)
    return None


async def _find_confirmed(
    context: ApiContext, partition: int, seq: Seq
) -> tuple[PartitionState, BufferedUsage | None]:
    """Find a usage of the stream; in the tier `replicated` wait until it cannot be lost.

    The stream also has usages whose commit no replica has confirmed. If the primary is lost now,
    another usage gets the id. What a later commit of this process or the archive covers stays. But
    a commit to another server proves nothing: the reader may still read from a former primary.

    Raises:
        RedisUnavailable: neither covers the usage in time.
    """
    reader, committer = context.readers[partition], context.committers.committers[partition]
    end = monotonic() + MAX_CONFIRM_SECONDS
    state, entry = await reader.find_usage(seq)
    while entry and context.settings.durability == "replicated" and seq > state.archived:
        session = committer.session
        is_same = session is not None and session.server_id == state.server_id
        if is_same and seq <= committer.highest_seq:
            break
        if monotonic() > end:
            raise RedisUnavailable
        if session and not is_same:
            await reader.close()
        await asyncio.sleep(CONFIRM_INTERVAL_SECONDS)
        state, entry = await reader.find_usage(seq)
    return state, entry


async def _find_archived(
    context: ApiContext, credential: Credential, audit: ReadAudit, usage_id: UsageId
) -> StampedUsage | None:
    partition, seq = split_usage_id(usage_id, context.settings.partitions)
    # The flusher records the read with the status that it finds. Whether another credential gets
    # that status is known only when its stamp and its patient are compared.
    entry = audit.take_required() if reads_all(credential) else None
    try:
        line = await context.archive.find_line(partition, seq, request_id_of(audit.request), entry)
    except UsageExpired:
        if not reads_all(credential):  # nothing shows whose it was
            raise Problem(404, NO_SUCH_USAGE) from None
        raise Problem(410, "The usage is no longer kept.") from None
    return split_archived_stamp(line) if line else None


@make_handler
async def get_count(context: ApiContext, request: Request) -> HTTPResponse:
    """Return how many usages have an id, are in the archive, and wait in Redis."""
    credential = await context.authorizer.authorize(request, "read")
    if not reads_all(credential):
        raise Problem(403, "This credential may read usages of one patient only.")
    counts = await count_usages(context)
    limits = context.authorizer.limit_headers_of(request, credential)
    return make_json_response(counts, headers=limits)


async def count_usages(context: ApiContext) -> dict[str, int]:
    """Add up the counters of all partitions. The cost does not depend on the number of usages.

    Raises:
        RedisUnavailable: the Redis of a partition does not answer.
        NotSeeded: no flusher has accepted the Redis of a partition, as after a loss of its data.
            The counts are unknown, not 0.
    """
    states = await asyncio.gather(*(reader.read_state() for reader in context.readers))
    if any(state.seq is None or not state.epoch for state in states):
        raise NotSeeded
    count = sum((state.seq or 0) - state.skipped for state in states)
    archived = sum(state.archived - state.skipped for state in states)
    return {"count": count, "archived": archived, "buffered": count - archived}
