"""A temporary stack on this machine, as `busyapi dev` starts one, for one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.target import Sample, Target
from perf import procfs
from perf.stack import BusyapiStack


class Local(Target):
    """A stack that this process started. Its memory and CPU time can be read."""

    def __init__(self, stack: BusyapiStack) -> None:
        super().__init__(f"http://127.0.0.1:{stack.port}", archive=stack.stack.archive)
        self._stack = stack

    def sample(self, at: float) -> Sample:
        """Sample each process."""
        processes = self._stack.processes
        return Sample(
            at,
            self.fetch_counts()["buffered"],
            {name: procfs.resident_bytes(process.pid) for name, process in processes.items()},
            {name: procfs.cpu_seconds(process.pid) for name, process in processes.items()},
        )

    def about(self) -> dict[str, str]:
        """Return a description and the versions."""
        own = f"a stack of its own, {len(self._stack.stack.apis)} API processes"
        versions = {name: v for name, v in self._stack.versions().items() if name != "wrk"}
        return {"target": own, **versions}


@contextmanager
def start_local(folder: Path, processes: int) -> Iterator[Local]:
    """Start a stack in a folder, and stop it afterwards."""
    with BusyapiStack(folder, processes) as stack:
        yield Local(stack)
