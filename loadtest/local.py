"""A stack of our own on this machine, as `busyapi dev` starts one; gone when the run is over."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.target import Sample, Target
from perf import procfs
from perf.stack import Durable


class Local(Target):
    """Its processes are ours, so that their memory and CPU time are known."""

    def __init__(self, stack: Durable) -> None:
        super().__init__(f"http://127.0.0.1:{stack.port}", archive=stack.stack.archive)
        self._stack = stack

    def sample(self, at: float) -> Sample:
        """Look at each process."""
        processes = self._stack.processes
        return Sample(
            at,
            self.counted()["buffered"],
            {name: procfs.resident_bytes(each.pid) for name, each in processes.items()},
            {name: procfs.cpu_seconds(each.pid) for name, each in processes.items()},
        )

    def about(self) -> dict[str, str]:
        """Say what runs."""
        own = f"a stack of its own, {len(self._stack.stack.apis)} API processes"
        versions = {name: v for name, v in self._stack.versions().items() if name != "wrk"}
        return {"target": own, **versions}


@contextmanager
def started(folder: Path, processes: int) -> Iterator[Local]:
    """Start one in a folder, and stop it."""
    with Durable(folder, processes) as stack:
        yield Local(stack)
