"""Handlers of POST /api/usages and /api/usages/batch."""

from functools import partial

from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext, make_handler
from busyapi.api.decode_scheduler import SLOW_SINGLE_STEP_SECONDS
from busyapi.api.idempotency import KEY_HEADER, parse_key
from busyapi.api.patient_binding import check_batch, check_single
from busyapi.api.responses import (
    make_batch_response,
    make_json_response,
    make_single_response,
)
from busyapi.auth.credential import Credential
from busyapi.commit.pending import AwaitedWrite
from busyapi.decode.body import (
    check_batch_type,
    check_content_encoding,
    check_single_type,
    read_batch,
    read_single,
)
from busyapi.decode.device_time import has_plausible_time
from busyapi.decode.usage import decode_fast
from busyapi.stream.session import CommitResult
from busyapi.web.request import BufferedRequest

WARNING_HEADER = "Usage-Warning"
"""A header and not a member of the body, because devices that parse `{"id":…}` strictly would fail.
Its value is a list of structured fields (RFC 9651)."""
REPLAYED_HEADERS = {"Idempotency-Replayed": "true"}


@make_handler
async def post_usage(context: ApiContext, request: BufferedRequest) -> HTTPResponse:
    """Store one usage; return 201 once it is as durable as the tier requires."""
    settings, headers = context.settings, request.headers
    credential = await context.authorizer.authorize(request, "write")
    check_content_encoding(headers.get("content-encoding", ""))
    await request.receive_whole_body(settings.max_body, partial(check_single_type, headers))
    context.start_timer(request)
    line, implausible = await _decode_single(context, request, credential)
    request.release_body()
    key = parse_key(request, [line], credential.id) if KEY_HEADER in headers else None
    stamp = context.make_stamp(credential)
    line += stamp
    result, partition = await _commit(context, AwaitedWrite((line,), key, is_stamped=bool(stamp)))
    usage = context.committers.make_id(result.last, partition)
    limits = context.authorizer.limit_headers_of(request, credential)
    if implausible:
        limits |= _warn(context, "implausible-timestamp", 1)
    if not context.cors:  # which adds headers
        return make_single_response(usage, limits, replayed=result.replayed)
    more = {"Location": f"/api/usages/{usage}"} | (REPLAYED_HEADERS if result.replayed else {})
    return make_json_response({"id": usage}, 201, more | limits)


@make_handler
async def post_batch(context: ApiContext, request: BufferedRequest) -> HTTPResponse:
    """Store many usages: all or none of them."""
    settings, headers = context.settings, request.headers
    credential = await context.authorizer.check_batch(request)
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
    if credential.patient_id is not None:
        work = check_batch(work, credential.patient_id)
    client = partial(context.authorizer.name_client, request, credential)
    lines, implausible = await context.decode_scheduler.run(work, client)
    request.release_body()  # only the lines wait for Redis: with the body, twice the memory
    await context.authorizer.charge_batch(request, credential, len(lines))
    key = parse_key(request, lines, credential.id) if KEY_HEADER in headers else None
    if stamp := context.make_stamp(credential):
        lines = [line + stamp for line in lines]
    result, partition = await _commit(context, AwaitedWrite(lines, key, is_stamped=bool(stamp)))
    ids = context.committers.make_ids(result.last, len(lines), partition)
    limits = context.authorizer.limit_headers_of(request, credential)
    if count := len(implausible):
        text = f"implausible-timestamp;count={count};first={implausible[0]}"
        limits |= _warn(context, text, count)
    if not context.cors:
        return make_batch_response(ids, limits, replayed=result.replayed)
    more = REPLAYED_HEADERS if result.replayed else {}
    return make_json_response({"ids": ids}, 201, more | limits)


async def _decode_single(
    context: ApiContext, request: BufferedRequest, credential: Credential
) -> tuple[bytes, bool]:
    """Return the line, and whether its time is implausible."""
    body, headers = request.body, request.headers
    encoding = headers.get("content-encoding", "")
    # As `read_single` does with such a body, without its steps and their scheduler.
    if body[:1] == b"{" and not encoding and credential.patient_id is None:
        line = decode_fast(body, strict=context.strict)
        if line is not None:
            return line, False
    work = read_single(
        body,
        headers.get("content-type", ""),
        encoding,
        strict=context.strict,
        max_bytes=context.settings.max_body,
    )
    if credential.patient_id is not None:
        work = check_single(work, credential.patient_id)
    client = partial(context.authorizer.name_client, request, credential)
    line = await context.decode_scheduler.run(work, client, SLOW_SINGLE_STEP_SECONDS)
    return line, context.strict and not has_plausible_time(line)


def _warn(context: ApiContext, warning: str, usages: int) -> dict[str, str]:
    """Count stored usages with an implausible time, and return the header that says so."""
    context.metrics.implausible_times.inc(usages)
    return {WARNING_HEADER: warning}


async def _commit(context: ApiContext, write: AwaitedWrite) -> tuple[CommitResult, int]:
    """Return the commit's result and the partition."""
    try:
        context.committers.submit(write)
        return await write.future, write.partition
    finally:
        # Break a cycle: a refusal refers to this frame, and the write's future to the refusal.
        # So all of it is freed with the response, and does not wait for the collector.
        del write
