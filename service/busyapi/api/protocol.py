"""The protocol class of one API process: with the fast path, if it may be used."""

import sanic
import structlog

from busyapi.api.context import ApiContext
from busyapi.api.fast_path import BATCH_ROUTE, ROUTE, FastPathProtocol
from busyapi.api.request_head import MAX_HEAD_BYTES, HeadReader
from busyapi.web.protocol import DeadlineProtocol

log = structlog.get_logger()

SANIC_VERSION = "25.12.1"
"""The Sanic version this was tested with. Any other version disables the fast path."""


def make_protocol(context: ApiContext, version: str = sanic.__version__) -> type[DeadlineProtocol]:
    """Return the protocol class of a process with this context."""
    settings = context.settings
    fast = settings.fast_path == "on"
    if fast and version != SANIC_VERSION:
        log.warning("fast_path_disabled", sanic=version, tested=SANIC_VERSION)
        fast = False
    members = {
        "connection_table": context.connections,
        "max_header": settings.max_header,
        "deadline": settings.request_deadline,
        "budget": context.budget,
        "context": context,
        "head_reader": HeadReader(reads_authorization=context.authorizer.reads_credentials != 0),
        "max_head_bytes": min(MAX_HEAD_BYTES, settings.max_header),
        "route_tally": context.metrics.requests.fast_path[ROUTE],
        "batch_tally": context.metrics.requests.fast_path[BATCH_ROUTE],
        "on_abort": staticmethod(context.record_abort),
    }
    return type("Protocol", (FastPathProtocol if fast else DeadlineProtocol,), members)
