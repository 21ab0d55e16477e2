"""Handlers of GET /api/usages/{id} and /api/usages/count."""

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
from busyapi.ids import MAX_ID, Seq, UsageId
from busyapi.stamp import StampedUsage, split_archived_stamp
from busyapi.usage_json import render_usage
from busyapi.web.problems import NO_STORE_HEADERS, Problem
from busyapi.web.protocol import request_id_of

log = structlog.get_logger()

NO_SUCH_USAGE = "No usage has this id."


@make_handler
async def get_usage(context: ApiContext, request: Request, usage: int) -> HTTPResponse:
    """Return one usage from Redis or the archive."""
    credential = await context.authorizer.authorize(request, *READ_SCOPES)
    if not 1 <= usage <= MAX_ID:
        raise Problem(404, NO_SUCH_USAGE)
    # One of the install: the flusher of a new partition may not be there yet.
    partition = (usage - 1) % context.finder.base
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
        place = context.finder.locate(usage_id)
        is_uncertain = is_redis_down or not place.is_certain
        try:
            if place.seq is not None:
                stamped = await _find_archived(
                    context, credential, audit, usage_id, (place.partition, place.seq)
                )
        except UsageExpired:
            if not place.is_certain:  # it may be another usage
                raise RedisUnavailable from None
            if not reads_all(credential):  # nothing shows whose it was
                raise Problem(404, NO_SUCH_USAGE) from None
            raise Problem(410, "The usage is no longer kept.") from None
        if stamped is None:
            raise RedisUnavailable if is_uncertain else Problem(404, NO_SUCH_USAGE)
    if not may_read(credential, stamped, context.stamper):
        raise Problem(404, NO_SUCH_USAGE)
    return stamped


async def _find_buffered(context: ApiContext, usage_id: UsageId) -> StampedUsage | None:
    (partition, seq, is_certain), state, entry = await context.finder.find_buffered(usage_id)
    if not is_certain and partition < context.settings.partitions:
        raise RedisUnavailable  # a new partition, or one whose Redis has just lost its record
    if entry:
        line = render_usage(usage_id, entry.received_ms, entry.line)
        return StampedUsage(line, entry.stamp)
    if seq is None or (state.seq is not None and seq > state.seq):
        raise Problem(404, NO_SUCH_USAGE)
    return None


async def _find_archived(
    context: ApiContext,
    credential: Credential,
    audit: ReadAudit,
    usage_id: UsageId,
    place: tuple[int, Seq],
) -> StampedUsage | None:
    """Return an archived usage; raises as `ArchiveClient.find_line`."""
    # The flusher records the read with the status that it finds. Whether another credential gets
    # that status is known only when its stamp and its patient are compared.
    entry = audit.take_required() if reads_all(credential) else None
    line = await context.archive.find_line(*place, request_id_of(audit.request), entry)
    if line is None or not line.startswith(b'{"id":%d,' % usage_id):
        return None
    return split_archived_stamp(line)


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
    states = await context.finder.read_states()
    if any(state.seq is None or not state.epoch for state in states):
        raise NotSeeded
    count = sum((state.seq or 0) - state.skipped for state in states)
    archived = sum(state.archived - state.skipped for state in states)
    return {"count": count, "archived": archived, "buffered": count - archived}
