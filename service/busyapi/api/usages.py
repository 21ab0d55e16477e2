"""POST /api/usages and /api/usages/batch."""

import re
from hashlib import sha256

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.answers import Created, json_answer
from busyapi.api.service import Service
from busyapi.commit.batch import Awaited, Key
from busyapi.decode.body import read_batch, read_single
from busyapi.ids import Seq, usage_id
from busyapi.web.problems import Problem

KEY_HEADER = "idempotency-key"
KEY = re.compile(r"[\x21-\x7e]{1,128}")
REPLAYED = {"Idempotency-Replayed": "true"}


async def post_usage(request: Request) -> HTTPResponse:
    """Take one usage; 201 once it is as durable as the tier says."""
    service: Service = request.app.ctx.service
    service.arrived(request)
    settings, headers = service.settings, request.headers
    if service.guard:
        service.guard.check(request, "write")
    line = read_single(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=service.strict,
        limit=settings.max_body,
    )
    key = _key(request, [line]) if KEY_HEADER in headers else None
    last, partition = await _commit(service, Awaited((line,), key))
    usage = usage_id(Seq(abs(last)), partition, settings.partitions)
    if last > 0:
        return service.done(request, Created(usage))
    location = {"Location": f"/api/usages/{usage}"}
    return service.done(request, json_answer({"id": usage}, 201, REPLAYED | location))


async def post_batch(request: Request) -> HTTPResponse:
    """Take many usages: all of them or none."""
    service: Service = request.app.ctx.service
    service.arrived(request)
    settings, headers = service.settings, request.headers
    if service.guard:
        service.guard.check(request, "write")
    lines = read_batch(
        request.body,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        strict=service.strict,
        limit=settings.max_batch_bytes,
        most=settings.max_batch_items,
    )
    key = _key(request, lines) if KEY_HEADER in headers else None
    last, partition = await _commit(service, Awaited(lines, key))
    ids = service.lanes.ids(abs(last), len(lines), partition)
    answer = json_answer({"ids": ids}, 201, REPLAYED if last < 0 else None)
    return service.done(request, answer)


async def _commit(service: Service, group: Awaited) -> tuple[int, int]:
    """Give the last seq, negative for a repeat, and the partition."""
    partition = service.lanes.submit(group)
    return await group.future, partition


def _key(request: Request, lines: list[bytes]) -> Key:
    # Sanic leaves the blanks behind a value, which are no part of it (RFC 9110, section 5.5).
    found = [each.strip(" \t") for each in request.headers.getall(KEY_HEADER)]
    if len(found) != 1 or not KEY.fullmatch(found[0]):
        raise Problem(400, "Idempotency-Key must be one header of 1 to 128 visible characters.")
    # The path is part of what is repeated: a batch of one is another request than a usage.
    path = request.path.rstrip("/").encode()
    body = sha256(b"\n".join([path, *lines]))
    return Key(sha256(found[0].encode()).hexdigest()[:32], body.hexdigest()[:32])
