"""GET /api/usages/{id} and /api/usages/count."""

import asyncio

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.answers import JSON, json_answer
from busyapi.api.service import Service
from busyapi.errors import NoLongerKept, NotSeeded, RedisAway
from busyapi.ids import MAX_ID, Seq, UsageId, locate
from busyapi.record import record
from busyapi.web.problems import NOT_CACHED, Problem
from busyapi.web.protocol import named

NEVER = "No usage has this id."


async def get_usage(request: Request, usage: int) -> HTTPResponse:
    """Give one usage, from the buffer or the archive."""
    service: Service = request.app.ctx.service
    if service.guard:
        service.guard.check(request, "read")
    if not 1 <= usage <= MAX_ID:
        raise Problem(404, NEVER)
    partition, seq = locate(UsageId(usage), service.settings.partitions)
    away = False
    try:
        line = await _buffered(service, UsageId(usage), partition, seq)
    except RedisAway:
        # The archive may have it all the same.
        line, away = None, True
    if line is None:
        line = await _archived(request, partition, seq)
    if line is None:
        raise RedisAway if away else Problem(404, NEVER)
    return service.done(request, HTTPResponse(line, 200, NOT_CACHED, JSON))


async def _buffered(service: Service, usage: UsageId, partition: int, seq: Seq) -> bytes | None:
    state, found = await service.readers[partition].usage(seq)
    if found:
        return record(usage, found.received_ms, found.line)
    if state.seq is not None and seq > state.seq:
        raise Problem(404, NEVER)
    return None


async def _archived(request: Request, partition: int, seq: Seq) -> bytes | None:
    service: Service = request.app.ctx.service
    try:
        return await service.archive.find(partition, seq, named(request))
    except NoLongerKept:
        raise Problem(410, "The usage is no longer kept.") from None


async def get_count(request: Request) -> HTTPResponse:
    """Count usages: those given an id, those in the archive, those on the way."""
    service: Service = request.app.ctx.service
    return service.done(request, json_answer(await counts(service)))


async def counts(service: Service) -> dict[str, int]:
    """Count over all partitions, from their counters: it costs the same at any size.

    Raises:
        RedisAway: a partition's Redis does not answer.
        NotSeeded: no flusher has prepared a partition's Redis, as after a loss of its data: the
            counts are unknown, not 0.
    """
    states = await asyncio.gather(*(reader.state() for reader in service.readers))
    if any(state.seq is None or not state.epoch for state in states):
        raise NotSeeded
    count = sum((state.seq or 0) - state.skipped for state in states)
    archived = sum(state.archived - state.skipped for state in states)
    return {"count": count, "archived": archived, "buffered": count - archived}
