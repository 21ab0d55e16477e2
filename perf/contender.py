"""What is driven: something that takes posts on a port."""

from abc import abstractmethod

from perf import procfs
from perf.load import Load
from testkit.child_process import Child, Lifetime
from testkit.http1 import fetch


class Contender(Lifetime):
    """It runs within a `with`; all its processes are ours."""

    port: int
    beside: frozenset[str] = frozenset({"valkey", "flusher"})
    """Processes that are not the application, when the two are kept on cores of their own."""

    @property
    @abstractmethod
    def processes(self) -> dict[str, Child]:
        """By the names that the report uses."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Say what runs, by the names that the report uses."""

    def probe(self, load: Load) -> None:
        """Post one request and see that it is answered as all of a load must be.

        Raises:
            RuntimeError: it is not; nothing should be measured then.
        """
        answer = fetch(
            self.port,
            load.path,
            method="POST",
            body=load.body.encode(),
            headers={"Content-Type": "application/json"},
        )
        if answer.status != load.status:
            raise RuntimeError(f"{self} answered {answer.status}: {answer.body[:500]!r}")

    def pin(self, application: int, beside: int) -> None:
        """Keep the application on one core, and what it leans on on another."""
        for name, child in self.processes.items():
            procfs.pin(child.pid, beside if name in self.beside else application)
