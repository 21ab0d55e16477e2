"""Logs: events with fields, as JSON on stdout or as text on a terminal.

There is no line per request, no payload value and no patient id. Libraries log through the standard
module, in the same format. Only type and place of their exceptions are kept, because a message or a
local variable could contain what a device sent. `log_events.py` lists the events.
"""

import logging
import sys
from time import monotonic
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEAT_SECONDS = 10.0
"""A repeated warning or error is written once per interval."""
MAX_LINE_KINDS = 256
"""Maximum of remembered warnings. Beyond it, the count of the oldest is written."""

CHATTY_LIBRARIES = (
    *("sanic.root", "sanic.error", "sanic.server", "sanic.access", "asyncio", "aiohttp"),
    "pyiceberg",
)
"""Loggers of which only warnings are kept."""


def configure_logging(level: str, **context: Any) -> None:
    """Set up logging for one process. Each line contains `context`."""
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
                # The time of writing: a count may be written long after what it counts.
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in CHATTY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


class RepeatedLine:
    """Lines that differ only in time and request id."""

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.count = 0
        self.last: logging.LogRecord | None = None


class SamplingHandler(logging.StreamHandler[Any]):
    """Writes the first line of a kind, then a count of its repeats once per REPEAT_SECONDS.

    A count that is due is written before the next line of any kind, and at the end. The number of
    lines without `repeated` plus the sum of all `repeated` equals the number of logged lines,
    unless the process is killed.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        # In order of age: a kind moves to the end when its count is written.
        self._repeats: dict[object, RepeatedLine] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count a line."""
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
        """Write the count of the oldest kind. With a time, start its next count."""
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
    # The text of a library's line may quote a request: keep only its logger and place.
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
