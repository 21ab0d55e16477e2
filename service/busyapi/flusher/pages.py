"""The handlers of POST /pages and /audit/query: a query of the API, and the record of it."""

import json
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sanic.response import HTTPResponse

from busyapi.audit.record import InvalidEntry, decode_entry
from busyapi.errors import BodyTooLarge
from busyapi.flusher.audit import AuditKeeper
from busyapi.flusher.loop import Flusher
from busyapi.flusher.page_reader import MAX_BYTES, MAX_USAGES, PageFailed, PageReader, PagesBusy
from busyapi.web.internal_headers import PATIENT_PLACE
from busyapi.web.problems import NO_STORE_HEADERS, Problem, make_retry_headers
from busyapi.web.protocol import request_id_of
from busyapi.web.request import BufferedRequest

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 16


@dataclass
class PageHandler:
    """The handler of POST /pages: the matching usages of a range of archived seqs."""

    flusher: Flusher
    reader: PageReader

    async def __call__(self, request: BufferedRequest) -> HTTPResponse:
        """Return the worker's answer."""
        query = await _receive_members(request)
        writer = self.flusher.writer
        if writer is None:
            raise Problem(503, "The archive is not open.", make_retry_headers())
        try:
            first, last = int(query["first"]), int(query["last"])
            query["usages"] = min(int(query["usages"]), MAX_USAGES)
        except (LookupError, TypeError, ValueError):
            raise Problem(400, "The body is not a query.") from None
        if not first <= last <= writer.cursor:
            # Redis has trimmed usages that this archive does not have.
            raise Problem(503, "The archive does not have these seqs.", make_retry_headers())
        try:
            answer = await self.reader.read(query | {"bytes": MAX_BYTES})
        except PagesBusy:
            raise Problem(429, "Other queries are under way.", make_retry_headers()) from None
        except PageFailed as error:
            log.warning("query_failed", error=str(error), request_id=request_id_of(request))
            raise Problem(503, "The archive cannot be read.", make_retry_headers()) from None
        return HTTPResponse(answer, 200, NO_STORE_HEADERS, "application/octet-stream")


@dataclass
class QueryRecordHandler:
    """The handler of POST /audit/query: records a query, with a digest in place of the patient."""

    keeper: AuditKeeper

    async def __call__(self, request: BufferedRequest) -> HTTPResponse:
        """Record the entry, and answer when it is on disk."""
        members = await _receive_members(request)
        try:
            entry = decode_entry(json.dumps(members["entry"]).encode())
            patient = str(members["patient"])
        except (InvalidEntry, LookupError):
            raise Problem(422, "The body is not an entry and a patient.") from None
        digest = await self.keeper.digest_patient(patient)
        resource = entry.resource.replace(PATIENT_PLACE, digest)
        await self.keeper.record([replace(entry, resource=resource)])
        return HTTPResponse(b"", 204, NO_STORE_HEADERS)


async def _receive_members(request: BufferedRequest) -> dict[str, Any]:
    try:
        await request.receive_whole_body(MAX_BODY_BYTES)
        members = json.loads(request.body)
    except BodyTooLarge as error:
        raise Problem(413, str(error)) from None
    except (ValueError, RecursionError):
        raise Problem(400, "The body is not JSON.") from None
    if not isinstance(members, dict):
        raise Problem(400, "The body is not a JSON object.")
    return members
