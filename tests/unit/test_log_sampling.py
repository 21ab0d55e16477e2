"""Repeated warnings: the first is written, the others are counted, and few kinds are kept."""

import io
import json
import logging

import pytest

from busyapi.telemetry import logs
from busyapi.telemetry.logs import MAX_LINE_KINDS, REPEAT_SECONDS, SamplingHandler


class Clock:
    """The handler's clock."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the handler's clock."""
    monkeypatch.setattr(logs, "monotonic", clock := Clock())
    return clock


class Log:
    """A handler and what it wrote."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = SamplingHandler(self._stream)
        self.handler.setFormatter(Plain())

    def write(self, level: int = logging.WARNING, **fields: object) -> None:
        """Pass an event to the handler."""
        self.handler.handle(logging.LogRecord("busyapi", level, "file", 1, fields, (), None))

    def lines(self) -> list[dict[str, object]]:
        """Return what was written."""
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


class Plain(logging.Formatter):
    """Fields as JSON, with the count."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        fields = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.msg}
        count = getattr(record, "repeated", None)
        return json.dumps(fields if count is None else fields | {"repeated": count})


def test_the_first_is_written_and_the_rest_counted_before_the_next_line(clock: Clock) -> None:
    log = Log()
    for _ in range(5):
        log.write(event="write_rejected", reason="RedisUnavailable")
    assert log.lines() == [{"event": "write_rejected", "reason": "RedisUnavailable"}]
    clock.now += REPEAT_SECONDS
    log.write(logging.INFO, event="other")
    assert log.lines()[1:] == [
        {"event": "write_rejected", "reason": "RedisUnavailable", "repeated": 4},
        {"event": "other"},
    ]


@pytest.mark.usefixtures("clock")
def test_counts_are_written_at_the_end() -> None:
    log = Log()
    for number in range(3):
        log.write(event="failed", error="ValueError", request_id=str(number))
    log.handler.close()
    assert [line.get("repeated") for line in log.lines()] == [None, 2]
    assert log.lines()[1]["request_id"] == "2"


def test_nothing_is_lost_and_there_is_at_most_one_line_an_interval(clock: Clock) -> None:
    log = Log()
    for _ in range(1000):
        log.write(event="failed")
        clock.now += REPEAT_SECONDS / 99.5
    log.handler.close()
    assert sum(int(str(line.get("repeated", 1))) for line in log.lines()) == 1000
    assert len(log.lines()) <= 13


@pytest.mark.usefixtures("clock")
def test_different_lines_and_lines_below_warning_are_all_written() -> None:
    log = Log()
    for number in range(3):
        log.write(event="quarantined", first=number)
        log.write(logging.INFO, event="ready")
    assert len(log.lines()) == 6


def test_after_a_quiet_interval_a_repeated_line_is_written(clock: Clock) -> None:
    log = Log()
    for _ in range(2):
        log.write(event="write_rejected")
        clock.now += REPEAT_SECONDS
    assert log.lines() == [{"event": "write_rejected"}] * 2


@pytest.mark.usefixtures("clock")
def test_few_kinds_are_kept_and_the_count_of_a_dropped_kind_is_written() -> None:
    log = Log()
    log.write(event="first")
    log.write(event="first")
    for number in range(MAX_LINE_KINDS * 3):
        log.write(event="failed", number=number)
    assert {"event": "first", "repeated": 1} in log.lines()
    assert len(log.handler._repeats) == MAX_LINE_KINDS
