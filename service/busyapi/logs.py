"""Logs: events with fields, JSON on stdout, readable on a terminal.

No line for each request, no payload value, no patient id. Libraries log through the standard
module and come out in the same form; of their exceptions only type and place are kept, because a
message or a local variable could hold what a device sent.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger


def configure(level: str, **context: Any) -> None:
    """Set up logging for one process; `context` stands in every line."""
    shared = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _context(context),
        _no_traceback,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stdout.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_foreign, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ("sanic.root", "sanic.error", "sanic.server", "sanic.access", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _context(context: dict[str, Any]) -> Any:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**context, **event}

    return add


def _foreign(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # The text of a library's line may quote a request: its logger and place are what we keep.
    record: logging.LogRecord = event["_record"]
    event["event"] = "library_log"
    event["logger"] = record.name
    event["where"] = f"{record.module}:{record.lineno}"
    if record.exc_info and record.exc_info[0]:
        event["error"] = record.exc_info[0].__name__
    return event


def _no_traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("exc_info", None)
    event.pop("stack_info", None)
    return event
