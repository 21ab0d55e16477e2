"""The port for API processes alone: lookups and queries in the archive, and the audit trail.

With a shared secret or an authority for client certificates, only the holders of one are served.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from ssl import SSLContext
from typing import Any, NamedTuple

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.audit.record import AuditEntry, InvalidEntry, decode_entry
from busyapi.errors import BodyTooLarge
from busyapi.flusher.audit import AuditKeeper
from busyapi.flusher.lookup import LookupHandler
from busyapi.flusher.pages import PageHandler, QueryRecordHandler
from busyapi.web.connection_refusal import ConnectionRefuser
from busyapi.web.connections import ConnectionTable
from busyapi.web.problems import NO_STORE_HEADERS, Problem
from busyapi.web.protocol import ConnectionLimits
from busyapi.web.request import BufferedRequest
from busyapi.web.secondary_port import SecondaryPort
from busyapi.web.shared_secret import SharedSecret, is_authorized

MAX_BODY_BYTES = 1 << 20
MAX_ENTRIES = 2_000
"""Entries in one request."""

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


class ArchivePortConfig(NamedTuple):
    """Who may use the port."""

    port: int
    secret: SharedSecret | None = None
    tls: SSLContext | None = None
    needs_client_cert: bool = False

    @property
    def is_open(self) -> bool:
        """Return whether every process that can connect is served."""
        return self.secret is None and not self.needs_client_cert


class ArchiveHandlers(NamedTuple):
    """What answers the requests of the port."""

    lookup: LookupHandler
    pages: PageHandler
    keeper: AuditKeeper


@dataclass
class AuditHandler:
    """The handler of POST /audit: lines of entries, all recorded or none."""

    keeper: AuditKeeper

    async def __call__(self, request: BufferedRequest) -> HTTPResponse:
        """Record entries, and answer when they are on disk."""
        try:
            await request.receive_whole_body(MAX_BODY_BYTES)
        except BodyTooLarge as error:
            raise Problem(413, str(error)) from None
        await self.keeper.record(_parse_entries(request.body))
        return HTTPResponse(b"", 204, NO_STORE_HEADERS)


def _parse_entries(body: bytes) -> list[AuditEntry]:
    lines = body.splitlines()
    if not 1 <= len(lines) <= MAX_ENTRIES:
        raise Problem(422, f"The body must have 1 to {MAX_ENTRIES} lines.")
    try:
        return [decode_entry(line) for line in lines]
    except InvalidEntry:
        raise Problem(422, "A line of the body is not an entry of the audit trail.") from None


def make_archive_port(
    config: ArchivePortConfig,
    handlers: ArchiveHandlers,
    max_connections: int,
    limits: ConnectionLimits,
) -> SecondaryPort:
    """Return the port, not opened yet."""
    table = ConnectionTable(max_connections, ConnectionRefuser({}))
    port = SecondaryPort("archive", MAX_BODY_BYTES, limits, table)

    def require_secret(handle: Handler) -> Handler:
        @wraps(handle)
        async def handle_authorized(request: Request, **parameters: Any) -> HTTPResponse:
            header = request.headers.get("authorization", "")
            if config.secret and not is_authorized(header, config.secret):
                raise Problem(
                    401,
                    "The request has no valid secret. See BUSYAPI_ARCHIVE_SECRET_FILE.",
                    {"WWW-Authenticate": 'Bearer realm="busyapi-archive"'},
                )
            return await handle(request, **parameters)

        return handle_authorized

    port.add_route(require_secret(handlers.lookup.__call__), "/usages/<seq:int>", ["GET", "HEAD"])
    routes: dict[str, Handler] = {
        "/audit": AuditHandler(handlers.keeper).__call__,
        "/audit/query": QueryRecordHandler(handlers.keeper).__call__,
        "/pages": handlers.pages.__call__,
    }
    for path, handler in routes.items():
        # With `stream` the secret is checked before the body is received.
        port.app.add_route(require_secret(handler), path, methods=["POST"], name=path, stream=True)
    return port
