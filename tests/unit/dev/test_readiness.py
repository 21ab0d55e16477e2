"""The printed readiness, and the deadline of a start."""

from pathlib import Path
from typing import Any, cast

import pytest

from busyapi.dev import readiness, stack
from busyapi.dev.child import Child, DidNotStart
from busyapi.dev.probes import Readiness
from busyapi.dev.readiness import ReadinessMonitor
from busyapi.dev.run import format_status
from busyapi.dev.stack import Stack

READY = Readiness()
SEEDING = Readiness("partition: the buffer is being prepared")
HALTED = Readiness("a copy; type: busyapi archive confirm-restore", is_halted=True)
LOADING = Readiness("LOADING", is_loading=True)


class Part:
    """A child with a readiness that the test sets."""

    is_started = True
    restarts = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.program = self
        self.address = "port 1"
        self.state = READY

    async def probe(self) -> Readiness:
        return self.state

    def require_running(self) -> None:
        pass

    def make_start_error(self, problem: str) -> DidNotStart:
        return DidNotStart(f"{self.name} {problem}")

    async def start(self) -> None:
        pass


class Parts:
    """A monitor of a flusher and an API process, and its output."""

    def __init__(self) -> None:
        self.flusher, self.api = Part("flusher-0"), Part("api-0")
        self.printed: list[str] = []
        groups = cast("Any", ([self.flusher], [self.api]))
        self.monitor = ReadinessMonitor(groups, Path("archive"), self.printed.append)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0)
    return Parts()


async def test_cause_is_printed_once_and_its_effect_not_at_all(parts: Parts) -> None:
    parts.flusher.state = Readiness("no connection to Redis")
    parts.api.state = SEEDING
    for _ in range(3):
        assert not await parts.monitor.poll()
    assert parts.printed == ["flusher-0 is not ready: no connection to Redis"]


async def test_ready_is_printed_at_first_and_after_a_reason_or_a_restart(parts: Parts) -> None:
    assert await parts.monitor.poll()
    assert parts.printed == ["flusher-0 is ready on port 1", "api-0 is ready on port 1"]
    parts.flusher.state = SEEDING
    await parts.monitor.poll()
    parts.flusher.state = READY
    parts.api.restarts += 1
    await parts.monitor.poll()
    await parts.monitor.poll()
    assert parts.printed[3:] == ["flusher-0 is ready again", "api-0 is ready again"]


async def test_reason_that_keeps_changing_is_printed_once(parts: Parts) -> None:
    for number in range(9):
        parts.api.state = Readiness(f"{number} of 9")
        await parts.monitor.poll()
    assert parts.printed[1:] == ["api-0 is not ready: 0 of 9"]


async def test_halted_flusher_is_printed_at_once_with_the_command_to_type(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 60)
    parts.flusher.state = HALTED
    assert not await parts.monitor.poll()
    assert parts.monitor.is_halted
    assert "archive confirm-restore --dir archive\n" in parts.printed[0]


@pytest.mark.parametrize(("state", "ends"), [(SEEDING, True), (LOADING, False), (HALTED, False)])
async def test_start_has_a_deadline_except_while_loading_or_halted(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, state: Readiness, *, ends: bool
) -> None:
    monkeypatch.setattr(stack, "READY_SECONDS", 0)
    monkeypatch.setattr(stack, "START_POLL_SECONDS", 0)
    parts.flusher.state = state
    polls = 0

    async def poll() -> bool:
        nonlocal polls
        polls += 1
        if polls > 5:
            parts.flusher.state = READY
        return await ReadinessMonitor.poll(parts.monitor)

    monkeypatch.setattr(parts.monitor, "poll", poll)
    new_stack = Stack.__new__(Stack)
    new_stack._valkey, new_stack._apis, new_stack._lakes = [], [], []
    new_stack._flushers = [cast("Child", parts.flusher)]
    new_stack._monitor = parts.monitor
    if ends:
        with pytest.raises(DidNotStart, match="flusher-0 is not ready after 0 s: partition: "):
            await new_stack.start()
    else:
        await new_stack.start()


def test_status_line() -> None:
    counts = {"count": 141_002, "archived": 140_800, "buffered": 202}
    expected = "1,204/s · 141,002 stored · 140,800 archived · backlog 202"
    assert format_status(1204.4, counts) == expected
