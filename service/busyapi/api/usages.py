"""POST /api/usages and /api/usages/batch."""

from functools import partial

from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext
from busyapi.api.idempotency import KEY_HEADER, parse_key
from busyapi.api.rate_limit import client_network
from busyapi.api.responses import CreatedResponse, make_json_response
from busyapi.commit.pending import AwaitedWrite
from busyapi.decode.body import (
    check_batch_type,
    check_content_encoding,
    check_single_type,
    read_batch,
    read_single,
)
from busyapi.ids import Seq, make_usage_id
from busyapi.stream.session import CommitResult
from busyapi.web.protocol import BufferedRequest

REPLAYED_HEADERS = {"Idempotency-Replayed": "true"}


async def post_usage(request: BufferedRequest) -> HTTPResponse:
    """Take one usage; 201 once it is as durable as the tier says."""
    context: ApiContext = request.app.ctx.context
    settings, headers = context.settings, request.headers
    credential = context.authorizer.authorize(request, "write") if context.authorizer else ""
    check_content_encoding(headers.get("content-encoding", ""))
    await request.receive_whole_body(settings.max_body, partial(check_single_type, headers))
    context.start_timer(request)
    work = read_single(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=context.strict,
        max_bytes=settings.max_body,
    )
    line = await context.decode_scheduler.run(work, partial(_client_of, request, credential))
    request.release_body()
    found = parse_key(request, [line], credential) if KEY_HEADER in headers else None
    result, partition = await _commit(context, AwaitedWrite((line,), found))
    usage = make_usage_id(Seq(result.last), partition, settings.partitions)
    if not result.replayed and not context.cors:  # which adds headers
        return context.record_response(request, CreatedResponse(usage))
    location = {"Location": f"/api/usages/{usage}"} | (REPLAYED_HEADERS if result.replayed else {})
    return context.record_response(request, make_json_response({"id": usage}, 201, location))


async def post_batch(request: BufferedRequest) -> HTTPResponse:
    """Take many usages: all of them or none."""
    context: ApiContext = request.app.ctx.context
    settings, headers = context.settings, request.headers
    credential = context.authorizer.check_batch(request) if context.authorizer else ""
    check_content_encoding(headers.get("content-encoding", ""))
    await request.receive_whole_body(settings.max_batch_bytes, partial(check_batch_type, headers))
    context.start_timer(request)
    work = read_batch(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=context.strict,
        max_bytes=settings.max_batch_bytes,
        max_items=settings.max_batch_items,
        max_item_bytes=settings.max_body,
    )
    lines = await context.decode_scheduler.run(work, partial(_client_of, request, credential))
    request.release_body()  # the lines are what waits for Redis; twice the bytes would
    if context.authorizer:
        context.authorizer.charge_batch(request, credential, len(lines))
    found = parse_key(request, lines, credential) if KEY_HEADER in headers else None
    result, partition = await _commit(context, AwaitedWrite(lines, found))
    ids = context.committers.make_ids(result.last, len(lines), partition)
    answer = make_json_response({"ids": ids}, 201, REPLAYED_HEADERS if result.replayed else None)
    return context.record_response(request, answer)


def _client_of(request: BufferedRequest, credential: str) -> str:
    return credential or client_network(str(request.ip))


async def _commit(context: ApiContext, write: AwaitedWrite) -> tuple[CommitResult, int]:
    """Return the commit's result and the partition."""
    try:
        partition = context.committers.submit(write)
        return await write.future, partition
    finally:
        # A refusal keeps this frame, and the group's future keeps the refusal: without a cycle all
        # of it goes with the answer, and does not wait for the collector.
        del write
