"""The handler of GET /usages/<seq>: a usage that the API looks up in the archive.

If the request carries an entry for the audit trail, it is answered only after the entry is on disk.
"""

import asyncio
from dataclasses import replace

import structlog
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.audit.record import AuditEntry, InvalidEntry, decode_entry
from busyapi.errors import ArchiveError, AuditUnavailable, UnknownVersion, UsageExpired
from busyapi.flusher.audit import AuditKeeper
from busyapi.flusher.loop import Flusher
from busyapi.ids import Seq
from busyapi.web.internal_headers import AUDIT_HEADER, AUDITED_HEADER
from busyapi.web.problems import (
    NO_STORE_HEADERS,
    Problem,
    make_retry_headers,
    render_problem,
)
from busyapi.web.protocol import request_id_of

log = structlog.get_logger()


class LookupHandler:
    """Looks up lines in the archive of one flusher."""

    def __init__(self, flusher: Flusher, keeper: AuditKeeper) -> None:
        self._flusher, self._keeper = flusher, keeper

    async def __call__(self, request: Request, seq: int) -> HTTPResponse:
        """Return one line of the archive."""
        entry = _parse_entry(request)
        try:
            response = await self._find(request, Seq(seq))
        except Problem as problem:
            if problem.status not in {404, 410}:
                raise
            response = render_problem(problem)
        if entry:
            try:
                await self._keeper.record([replace(entry, status=response.status)])
            except AuditUnavailable as error:
                headers = make_retry_headers() | {AUDITED_HEADER: "no"}
                raise Problem(503, str(error), headers) from None
            response.headers[AUDITED_HEADER] = "yes"
        return response

    async def _find(self, request: Request, seq: Seq) -> HTTPResponse:
        writer = self._flusher.writer
        if writer is None:
            raise Problem(503, "The archive is not open.", make_retry_headers())
        try:
            line = await asyncio.to_thread(writer.find_line, seq)
        except UsageExpired:
            raise Problem(410, "The usage is no longer kept.") from None
        except (ArchiveError, UnknownVersion, OSError) as error:
            log.warning(
                "lookup_failed", error=type(error).__name__, request_id=request_id_of(request)
            )
            self._flusher.report_damage(writer)
            raise Problem(503, "The archive cannot be read.", make_retry_headers()) from None
        if line is None:
            raise Problem(404, "No usage has this seq.")
        return HTTPResponse(line, 200, NO_STORE_HEADERS, "application/json")


def _parse_entry(request: Request) -> AuditEntry | None:
    header = request.headers.get(AUDIT_HEADER)
    if not header:
        return None
    try:
        return decode_entry(header.encode())
    except (InvalidEntry, UnicodeEncodeError):
        raise Problem(400, "The entry for the audit trail is malformed.") from None
