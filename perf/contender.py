"""A contender: a program that accepts posts on a port."""

from abc import abstractmethod

from perf import procfs
from perf.load import Load
from testkit.child_process import Child, ManagedResource
from testkit.http1 import Tls, fetch


class Contender(ManagedResource):
    """A program under load within a `with`; the benchmark owns all its processes."""

    port: int
    tls: Tls | None = None
    """What a client needs if the port has TLS."""
    dependencies: frozenset[str] = frozenset({"valkey", "flusher"})
    """Processes that are not the application. They may be pinned to another core."""

    @property
    def origin(self) -> str:
        """Return scheme, address and port."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    @abstractmethod
    def processes(self) -> dict[str, Child]:
        """Return the processes by the names that the report uses."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of what runs, by the names that the report uses."""

    def authorize(self, load: Load) -> Load:
        """Return the load with the credential that this contender requires."""
        return load

    def probe(self, load: Load) -> None:
        """Post one request, and check that the answer is the one that the load expects.

        Raises:
            RuntimeError: The answer differs; do not measure then.
        """
        answer = fetch(
            self.port,
            load.path,
            method="POST",
            body=load.body.encode(),
            headers=load.headers,
            tls=self.tls,
        )
        if answer.status != load.status:
            raise RuntimeError(f"{self} answered {answer.status}: {answer.body[:500]!r}")

    def pin(self, application: int, other: int) -> None:
        """Pin the application to one core, and its dependencies to another."""
        for name, child in self.processes.items():
            procfs.pin(child.pid, other if name in self.dependencies else application)
