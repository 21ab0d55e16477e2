"""GET /api/usages/{id} and /api/usages/count."""

import asyncio

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext
from busyapi.api.responses import JSON, make_json_response
from busyapi.errors import NotSeeded, RedisUnavailable, UsageExpired
from busyapi.ids import MAX_ID, Seq, UsageId, split_usage_id
from busyapi.usage_json import render_usage
from busyapi.web.problems import NO_STORE_HEADERS, Problem
from busyapi.web.protocol import request_id_of

NO_SUCH_USAGE = "No usage has this id."


async def get_usage(request: Request, usage: int) -> HTTPResponse:
    """Give one usage, from the buffer or the archive."""
    context: ApiContext = request.app.ctx.context
    if context.authorizer:
        context.authorizer.authorize(request, "read")
    if not 1 <= usage <= MAX_ID:
        raise Problem(404, NO_SUCH_USAGE)
    partition, seq = split_usage_id(UsageId(usage), context.settings.partitions)
    away = False
    try:
        line = await _find_buffered(context, UsageId(usage), partition, seq)
    except RedisUnavailable:
        # The archive may have it all the same.
        line, away = None, True
    if line is None:
        line = await _find_archived(request, partition, seq)
    if line is None:
        raise RedisUnavailable if away else Problem(404, NO_SUCH_USAGE)
    return context.record_response(request, HTTPResponse(line, 200, NO_STORE_HEADERS, JSON))


async def _find_buffered(
    context: ApiContext, usage: UsageId, partition: int, seq: Seq
) -> bytes | None:
    state, found = await context.readers[partition].find_usage(seq)
    if found:
        return render_usage(usage, found.received_ms, found.line)
    if state.seq is not None and seq > state.seq:
        raise Problem(404, NO_SUCH_USAGE)
    return None


async def _find_archived(request: Request, partition: int, seq: Seq) -> bytes | None:
    context: ApiContext = request.app.ctx.context
    try:
        return await context.archive.find_line(partition, seq, request_id_of(request))
    except UsageExpired:
        raise Problem(410, "The usage is no longer kept.") from None


async def get_count(request: Request) -> HTTPResponse:
    """Count usages: those given an id, those in the archive, those on the way."""
    context: ApiContext = request.app.ctx.context
    return context.record_response(request, make_json_response(await count_usages(context)))


async def count_usages(context: ApiContext) -> dict[str, int]:
    """Count over all partitions, from their counters: it costs the same at any size.

    Raises:
        RedisUnavailable: a partition's Redis does not answer.
        NotSeeded: no flusher has prepared a partition's Redis, as after a loss of its data: the
            counts are unknown, not 0.
    """
    states = await asyncio.gather(*(reader.read_state() for reader in context.readers))
    if any(state.seq is None or not state.epoch for state in states):
        raise NotSeeded
    count = sum((state.seq or 0) - state.skipped for state in states)
    archived = sum(state.archived - state.skipped for state in states)
    return {"count": count, "archived": archived, "buffered": count - archived}
