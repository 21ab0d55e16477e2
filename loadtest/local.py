"""A temporary stack on this machine, as `busyapi dev` starts one, for one run."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.events import LATENCY_THRESHOLD_MS, list_rewrites, list_rolls, name_delay
from loadtest.spikes import OTHERS, STEAL
from loadtest.target import Event, Sample, Target
from perf import procfs
from perf.guarded_stack import GuardedStack
from perf.stack import BusyapiStack


class Local(Target):
    """A stack that this process started. Its processes, files and logs can be read."""

    def __init__(self, stack: BusyapiStack) -> None:
        super().__init__(f"http://127.0.0.1:{stack.port}", archive=stack.stack.archive)
        self.stack = stack
        self._delays: dict[tuple[str, int], int] = {}
        """The longest delay of each kind in each second, in ms, by Valkey's latency monitor."""
        if isinstance(stack, GuardedStack):
            self.authorization = stack.authorization
        stack.server.command("CONFIG", "SET", "latency-monitor-threshold", LATENCY_THRESHOLD_MS)

    def sample(self, at: float) -> Sample:
        """Sample each process."""
        self._read_delays()
        pids = {name: process.pid for name, process in self.stack.processes.items()}
        busy, stolen = procfs.machine_seconds()
        return Sample(
            at,
            self.fetch_counts()["buffered"],
            {name: procfs.resident_bytes(pid) for name, pid in pids.items()},
            {name: procfs.cpu_seconds(pid) for name, pid in pids.items()},
            # The stack and the generator are descendants of this process.
            outside={STEAL: stolen, OTHERS: busy - procfs.cpu_seconds(os.getpid())},
            waiting={
                **{name: procfs.waiting_seconds(pid) for name, pid in pids.items()},
                "generator": sum(map(procfs.waiting_seconds, _list_generator(pids.values()))),
            },
        )

    def _read_delays(self) -> None:
        """Collect the latency monitor's history, of which Valkey keeps the last 160 seconds."""
        server = self.stack.server
        for kind, *_ in server.command("LATENCY", "LATEST"):
            for second, longest in server.command("LATENCY", "HISTORY", kind):
                self._delays[kind, second] = longest

    def list_events(self, since: float) -> list[Event]:
        """List the rolls, the AOF rewrites, and the delays within Valkey."""
        self._read_delays()
        log = self.stack.server.log.read_text()
        events = [*list_rolls(self.stack.stack.archive), *list_rewrites(log)]
        events += [
            Event(name, second, 1.0, longest)
            for (kind, second), longest in self._delays.items()
            if (name := name_delay(kind))
        ]
        return [event.shift(-since) for event in sorted(events, key=lambda event: event.at)]

    def about(self) -> dict[str, str]:
        """Return a description and the versions."""
        own = f"a stack of its own, {len(self.stack.stack.apis)} API processes"
        if self.authorization:
            own += ", posts need a token"
        versions = {name: v for name, v in self.stack.versions().items() if name != "wrk"}
        return {"target": own, **versions}


def _list_generator(stack: Iterable[int]) -> set[int]:
    """Return the descendants of this process that are not part of the stack."""
    parts = {*stack, *(child for pid in stack for child in procfs.descendants(pid))}
    return {*procfs.descendants(os.getpid())} - parts


@contextmanager
def start_local(folder: Path, processes: int, *, token: bool = False) -> Iterator[Local]:
    """Start a stack in a folder, and stop it afterwards."""
    stack = GuardedStack(folder, "token", processes) if token else BusyapiStack(folder, processes)
    with stack:
        yield Local(stack)
