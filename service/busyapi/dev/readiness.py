"""Watches which children are ready, and why the others are not."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from busyapi.dev.child import Child, Say
from busyapi.dev.command_text import complete_commands
from busyapi.dev.probes import Readiness

PATIENCE_SECONDS = 5.0
"""A child that is not ready for this long is reported."""
REPORT_SECONDS = 15.0
"""A reason that keeps changing is reported once in this time."""


@dataclass
class _Record:
    """The state of one child, and what was printed about it."""

    reason: str = ""
    was_ready: bool = False
    unready_since: float = 0.0
    reported: str = ""
    reported_at: float = 0.0
    restarts: int = 0


class ReadinessMonitor:
    """Probes children and prints changes, causes before effects.

    An API process is ready only after its flushers, and a flusher only after Valkey. Of several
    groups that are not ready only the first is reported.
    """

    def __init__(self, groups: Sequence[Sequence[Child]], archive: Path, say: Say) -> None:
        self.is_halted = False
        """A child needed an operator's decision at the last poll."""
        self.is_loading = False
        """A child was loading its data at the last poll."""
        self._groups = groups
        self._archive = archive
        self._say = say
        self._records = {child.name: _Record() for group in groups for child in group}

    async def poll(self) -> bool:
        """Probe each started child once and print what changed; return whether all are ready."""
        all_ready, self.is_halted, self.is_loading = True, False, False
        for group in self._groups:
            started = [child for child in group if child.is_started]
            states = await asyncio.gather(*(child.program.probe() for child in started))
            for child, state in zip(started, states, strict=True):
                self._record(child, state, is_cause=all_ready)
                self.is_halted |= state.is_halted
                self.is_loading |= state.is_loading
            all_ready = all_ready and not any(state.reason for state in states)
        return all_ready

    def reason(self, child: Child) -> str:
        """Return why a child was not ready at the last poll, "" if it was."""
        return self._records[child.name].reason

    def _record(self, child: Child, state: Readiness, *, is_cause: bool) -> None:
        record, now = self._records[child.name], monotonic()
        if state.reason and not record.reason:
            record.unready_since = now
        record.reason = state.reason
        if not state.reason:
            self._report_ready(child, record)
        elif is_cause and state.reason != record.reported:
            is_first = not record.reported
            since = record.unready_since if is_first else record.reported_at
            patience = PATIENCE_SECONDS if is_first else REPORT_SECONDS
            if state.is_halted or now - since >= patience:
                record.reported, record.reported_at = state.reason, now
                self._say(self._describe(child.name, state))

    def _report_ready(self, child: Child, record: _Record) -> None:
        if not record.was_ready:
            self._say(f"{child.name} is ready on {child.program.address}")
        elif record.reported or record.restarts != child.restarts:
            self._say(f"{child.name} is ready again")
        record.was_ready, record.reported = True, ""
        record.restarts = child.restarts

    def _describe(self, name: str, state: Readiness) -> str:
        if not state.is_halted:
            return f"{name} is not ready: {state.reason}"
        return (
            f"{name} is halted and needs a decision:\n"
            f"    {complete_commands(state.reason, self._archive)}\n"
            f"Everything keeps running meanwhile, and {name} continues by itself after that."
        )
