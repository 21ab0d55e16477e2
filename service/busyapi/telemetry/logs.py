"""Logs: events with fields, JSON on stdout, readable on a terminal.

No line for each request, no payload value, no patient id. Libraries log through the standard
module and come out in the same form; of their exceptions only type and place are kept, because a
message or a local variable could hold what a device sent. `telemetry/log_events.py` lists what we
log.
"""

import logging
import sys
from time import monotonic
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEAT_SECONDS = 10.0
"""A warning or an error that repeats is written once in this time."""
MAX_LINE_KINDS = 256
"""Warnings remembered; the one known longest is forgotten, its count written."""


def configure_logging(level: str, **context: Any) -> None:
    """Set up logging for one process; `context` stands in every line."""
    shared = [structlog.stdlib.add_log_level, _make_context_processor(context), _drop_traceback]
    renderer = (
        structlog.dev.ConsoleRenderer(timestamp_key="time")
        if sys.stdout.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = SamplingHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_redact_library_log, *shared],
            processors=[
                _add_repeat_count,
                # Of the writing: a count may be written long after what it counts.
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ("sanic.root", "sanic.error", "sanic.server", "sanic.access", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)


class RepeatedLine:
    """Lines that differ in nothing but their time and their request."""

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.count = 0
        self.last: logging.LogRecord | None = None


class SamplingHandler(logging.StreamHandler[Any]):
    """Writes the first of a kind, then how many more there were, at most once in REPEAT_SECONDS.

    A count that is due is written before the next line of any kind, and at the end. Lines without
    `repeated` and the sum of all `repeated` are as many as were logged, unless the process is
    killed.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._repeats: dict[
            object, RepeatedLine
        ] = {}  # by age: a kind whose count is written is new

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        now = monotonic()
        while (
            self._repeats and now - next(iter(self._repeats.values())).started_at >= REPEAT_SECONDS
        ):
            self._write_oldest_count(now)
        if record.levelno >= logging.WARNING and self._count_repeat(record, now):
            return
        super().emit(record)

    def close(self) -> None:
        """Write all counts."""
        while self._repeats:
            self._write_oldest_count(None)
        super().close()

    def _count_repeat(self, record: logging.LogRecord, now: float) -> bool:
        kind = self._repeats.get(key := _line_kind(record))
        if kind is None:
            if len(self._repeats) >= MAX_LINE_KINDS:
                self._write_oldest_count(None)
            self._repeats[key] = RepeatedLine(now)
            return False
        kind.count += 1
        kind.last = record
        return True

    def _write_oldest_count(self, now: float | None) -> None:
        """Write the count of the oldest kind; with a time, its next count begins."""
        key = next(iter(self._repeats))
        kind = self._repeats.pop(key)
        if kind.last is None:
            return
        kind.last.__dict__["repeated"] = kind.count
        super().emit(kind.last)
        if now is not None:
            self._repeats[key] = RepeatedLine(now)


def _line_kind(record: logging.LogRecord) -> object:
    if isinstance(record.msg, dict):
        fields = {**record.msg, "request_id": None}
        return tuple(sorted((name, str(value)) for name, value in fields.items()))
    return (record.name, record.module, record.lineno)


def _add_repeat_count(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    count = event["_record"].__dict__.get("repeated")
    return event if count is None else {**event, "repeated": count}


def _make_context_processor(context: dict[str, Any]) -> Any:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**context, **event}

    return add


def _redact_library_log(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # The text of a library's line may quote a request: its logger and place are what we keep.
    record: logging.LogRecord = event["_record"]
    event["event"] = "library_log"
    event["logger"] = record.name
    event["where"] = f"{record.module}:{record.lineno}"
    if record.exc_info and record.exc_info[0]:
        event["error"] = record.exc_info[0].__name__
    return event


def _drop_traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("exc_info", None)
    event.pop("stack_info", None)
    return event
