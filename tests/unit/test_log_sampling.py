"""Repeated warnings: written once, counted, never lost, and few remembered."""

import io
import json
import logging

import pytest

from busyapi.telemetry import logs
from busyapi.telemetry.logs import MAX_LINE_KINDS, REPEAT_SECONDS, SamplingHandler


class Clock:
    """The time that the handler is told."""

    now = 100.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock of ours."""
    monkeypatch.setattr(logs, "monotonic", clock := Clock())
    return clock


class Log:
    """A handler and what it wrote."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = SamplingHandler(self._stream)
        self.handler.setFormatter(Plain())

    def say(self, level: int = logging.WARNING, **fields: object) -> None:
        """Log an event."""
        self.handler.handle(logging.LogRecord("ours", level, "file", 1, fields, (), None))

    def lines(self) -> list[dict[str, object]]:
        """Return what was written."""
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


class Plain(logging.Formatter):
    """Fields as JSON, and the count."""

    def format(self, record: logging.LogRecord) -> str:
        """Render."""
        fields = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.msg}
        count = getattr(record, "repeated", None)
        return json.dumps(fields if count is None else fields | {"repeated": count})


def test_the_first_is_written_and_the_rest_counted_before_the_next_line(clock: Clock) -> None:
    log = Log()
    for _ in range(5):
        log.say(event="away", reason="RedisUnavailable")
    assert log.lines() == [{"event": "away", "reason": "RedisUnavailable"}]
    clock.now += REPEAT_SECONDS
    log.say(logging.INFO, event="other")
    assert log.lines()[1:] == [
        {"event": "away", "reason": "RedisUnavailable", "repeated": 4},
        {"event": "other"},
    ]


@pytest.mark.usefixtures("clock")
def test_counts_are_written_at_the_end() -> None:
    log = Log()
    for number in range(3):
        log.say(event="failed", error="ValueError", request_id=str(number))
    log.handler.close()
    assert [line.get("repeated") for line in log.lines()] == [None, 2]
    assert log.lines()[1]["request_id"] == "2"


def test_nothing_is_lost_and_there_is_at_most_one_line_an_interval(clock: Clock) -> None:
    log = Log()
    for _ in range(1000):
        log.say(event="failed")
        clock.now += REPEAT_SECONDS / 99.5
    log.handler.close()
    assert sum(int(str(line.get("repeated", 1))) for line in log.lines()) == 1000
    assert len(log.lines()) <= 13


@pytest.mark.usefixtures("clock")
def test_lines_that_differ_are_all_written_and_so_is_what_is_no_warning() -> None:
    log = Log()
    for number in range(3):
        log.say(event="quarantined", first=number)
        log.say(logging.INFO, event="ready")
    assert len(log.lines()) == 6


def test_after_a_quiet_time_it_is_the_first_again(clock: Clock) -> None:
    log = Log()
    for _ in range(2):
        log.say(event="away")
        clock.now += REPEAT_SECONDS
    assert log.lines() == [{"event": "away"}] * 2


@pytest.mark.usefixtures("clock")
def test_few_kinds_are_remembered_and_the_count_of_the_forgotten_is_written() -> None:
    log = Log()
    log.say(event="first")
    log.say(event="first")
    for number in range(MAX_LINE_KINDS * 3):
        log.say(event="failed", number=number)
    assert {"event": "first", "repeated": 1} in log.lines()
    assert len(log.handler._repeats) == MAX_LINE_KINDS
