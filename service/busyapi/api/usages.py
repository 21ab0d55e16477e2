"""POST /api/usages and /api/usages/batch."""

from functools import partial

from sanic.response import HTTPResponse

from busyapi.api.answers import Created, json_answer
from busyapi.api.keys import KEY_HEADER, key
from busyapi.api.rates import origin
from busyapi.api.service import Service
from busyapi.commit.batch import Awaited
from busyapi.decode.body import (
    read_batch,
    read_single,
    refuse_batch_type,
    refuse_coding,
    refuse_single_type,
)
from busyapi.ids import Seq, usage_id
from busyapi.web.protocol import WholeRequest

REPLAYED = {"Idempotency-Replayed": "true"}


async def post_usage(request: WholeRequest) -> HTTPResponse:
    """Take one usage; 201 once it is as durable as the tier says."""
    service: Service = request.app.ctx.service
    settings, headers = service.settings, request.headers
    credential = service.guard.check(request, "write") if service.guard else ""
    refuse_coding(headers.get("content-encoding", ""))
    await request.receive(settings.max_body, partial(refuse_single_type, headers))
    service.arrived(request)
    work = read_single(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=service.strict,
        limit=settings.max_body,
    )
    line = await service.turns.finish(work, partial(_sender, request, credential))
    request.release_body()
    found = key(request, [line], credential) if KEY_HEADER in headers else None
    last, partition = await _commit(service, Awaited((line,), found))
    usage = usage_id(Seq(abs(last)), partition, settings.partitions)
    if last > 0 and not service.cors:  # which adds headers
        return service.done(request, Created(usage))
    location = {"Location": f"/api/usages/{usage}"} | (REPLAYED if last < 0 else {})
    return service.done(request, json_answer({"id": usage}, 201, location))


async def post_batch(request: WholeRequest) -> HTTPResponse:
    """Take many usages: all of them or none."""
    service: Service = request.app.ctx.service
    settings, headers = service.settings, request.headers
    credential = service.guard.check_batch(request) if service.guard else ""
    refuse_coding(headers.get("content-encoding", ""))
    await request.receive(settings.max_batch_bytes, partial(refuse_batch_type, headers))
    service.arrived(request)
    work = read_batch(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=service.strict,
        limit=settings.max_batch_bytes,
        most=settings.max_batch_items,
        most_each=settings.max_body,
    )
    lines = await service.turns.finish(work, partial(_sender, request, credential))
    request.release_body()  # the lines are what waits for Redis; twice the bytes would
    if service.guard:
        service.guard.charge_batch(request, credential, len(lines))
    found = key(request, lines, credential) if KEY_HEADER in headers else None
    last, partition = await _commit(service, Awaited(lines, found))
    ids = service.lanes.ids(abs(last), len(lines), partition)
    answer = json_answer({"ids": ids}, 201, REPLAYED if last < 0 else None)
    return service.done(request, answer)


def _sender(request: WholeRequest, credential: str) -> str:
    return credential or origin(str(request.ip))


async def _commit(service: Service, group: Awaited) -> tuple[int, int]:
    """Give the last seq, negative for a repeat, and the partition."""
    try:
        partition = service.lanes.submit(group)
        return await group.future, partition
    finally:
        # A refusal keeps this frame, and the group's future keeps the refusal: without a cycle all
        # of it goes with the answer, and does not wait for the collector.
        del group
