"""Handlers of GET /api/usages/{id} and /api/usages/count."""

import asyncio
from time import monotonic

import structlog
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.audit import ReadAudit
from busyapi.api.confirmed import find_confirmed_seq, is_former_server
from busyapi.api.context import ApiContext, make_handler
from busyapi.api.rate_limit import client_network
from busyapi.api.read_access import READ_SCOPES, is_writer, may_read, reads_all
from busyapi.api.responses import JSON, make_json_response
from busyapi.api.usage_finder import Place
from busyapi.auth.credential import Credential
from busyapi.errors import NotSeeded, RedisUnavailable, UsageExpired
from busyapi.ids import MAX_ID, Seq, UsageId
from busyapi.stamp import StampedUsage, split_archived_stamp
from busyapi.stream.reader import BufferedUsage
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
    # One of the install: the flusher of a new partition may not be there yet.
    partition = (usage - 1) % (context.finder.base or 1)
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
    is_uncertain = is_expired = False
    async for place in context.finder.find_places(usage_id):
        try:
            stamped = await _find_at(context, credential, audit, usage_id, place)
        except UsageExpired:
            is_expired = True
            is_uncertain |= not place.is_certain  # it may be another usage
            continue
        if stamped is None:
            is_uncertain |= place.state is None or not place.is_certain
        elif may_read(credential, stamped, context.stamper):
            return stamped
        else:
            raise Problem(404, NO_SUCH_USAGE)
    if is_uncertain:
        raise RedisUnavailable
    if is_expired and reads_all(credential):  # otherwise nothing shows whose it was
        raise Problem(410, "The usage is no longer kept.")
    raise Problem(404, NO_SUCH_USAGE)


async def _find_at(
    context: ApiContext, credential: Credential, audit: ReadAudit, usage_id: UsageId, place: Place
) -> StampedUsage | None:
    """Return a usage if it is at this place; raises as `ArchiveClient.find_line`."""
    if usage := await _find_confirmed(context, place):
        return StampedUsage(render_usage(usage_id, usage.received_ms, usage.line), usage.stamp)
    stamped = None
    if place.seq is not None and place.may_be_archived:
        where = place.partition, place.seq
        stamped = await _find_archived(context, credential, audit, usage_id, where)
    if place.usage and not stamped:
        raise RedisUnavailable
    return stamped


async def _find_confirmed(context: ApiContext, place: Place) -> BufferedUsage | None:
    """Return the usage of a place; in the tier `replicated` wait until it cannot be lost."""
    usage, state, seq = place.usage, place.state, place.seq or Seq(0)
    end = monotonic() + MAX_CONFIRM_SECONDS
    while usage and state and seq > find_confirmed_seq(context, place.partition, state):
        if monotonic() > end:
            return None
        await asyncio.sleep(CONFIRM_INTERVAL_SECONDS)
        try:
            if is_former_server(context, place.partition, state):
                await context.finder.close_reader(place.partition)
            state, usage = await context.finder.find_buffered(place.partition, seq)
        except RedisUnavailable:
            return None
    return usage


async def _find_archived(
    context: ApiContext,
    credential: Credential,
    audit: ReadAudit,
    usage_id: UsageId,
    where: tuple[int, Seq],
) -> StampedUsage | None:
    """Return an archived usage; raises as `ArchiveClient.find_line`."""
    # The flusher records the read with the status that it finds. Whether another credential gets
    # that status is known only when its stamp and its patient are compared.
    entry = audit.find_required() if reads_all(credential) else None
    try:
        line = await context.archive.find_line(*where, request_id_of(audit.request), entry)
    except UsageExpired:
        audit.recorded_status = 410 if entry else None
        raise
    if entry:
        audit.recorded_status = 404 if line is None else 200
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
    states = (await context.finder.read_states()).values()
    if any(state.seq is None or not state.epoch for state in states):
        raise NotSeeded
    count = sum((state.seq or 0) - state.skipped for state in states)
    archived = sum(state.archived - state.skipped for state in states)
    return {"count": count, "archived": archived, "buffered": count - archived}
