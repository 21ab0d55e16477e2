"""Processes of busyapi, started as a container starts them, and a `Stack` of all parts."""

import sys
from abc import abstractmethod
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar, Protocol

from prometheus_client.parser import text_string_to_metric_families

from testkit.archive_reader import read_archive
from testkit.checker import Verdict, check_history
from testkit.child_process import (
    Child,
    ManagedResource,
    RunningProcess,
    environment_without_settings,
)
from testkit.fork_server import ForkServer
from testkit.history import History
from testkit.http1 import fetch
from testkit.log_leaks import STARTED_LOGS
from testkit.ports import reserve_port
from testkit.waiting import wait_until

READY_SECONDS = 30.0


class Store(Protocol):
    """Redis in any form: a `Server`, a `SentinelSet` or a `ClusterOfThree`."""

    def settings(self) -> dict[str, str]:
        """Return the settings with which busyapi connects to it."""


class Process(Child):
    """A process of busyapi. Its ports, log and settings stay the same over restarts."""

    environment: dict[str, str]
    """All environment variables. A change takes effect at the next start."""
    fork_server: ClassVar[ForkServer | None] = None
    """Starts processes faster. None in a benchmark, which starts processes as users do."""

    def __init__(
        self, folder: Path, name: str, arguments: list[str], settings: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.is_forked = True
        """False if `argv` is not busyapi alone: then the fork server is not used."""
        self._arguments = arguments
        super().__init__(
            [sys.executable, "-m", "busyapi", *arguments],
            log=folder / f"{name}.log",
            environment={**environment_without_settings(), **settings},
        )

    def spawn(self) -> None:
        """Start it without waiting until it is ready."""
        STARTED_LOGS.add(self.log)
        super().spawn()

    def _start_process(self) -> RunningProcess:
        server = self.fork_server
        if self.is_forked and server and server.can_start(self.environment):
            return server.start(self._arguments, self.environment, self.log)
        return super()._start_process()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.spawn()
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it is ready. Both errors quote the end of its log.

        Raises:
            TimeoutError: it is not ready in time.
            RuntimeError: it has ended.
        """
        try:
            wait_until(
                lambda: self.check_alive() and self.is_ready(),
                f"{self} to be ready",
                seconds=seconds,
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether it is ready."""

    @property
    @abstractmethod
    def scrape_port(self) -> int:
        """The port of /metrics."""

    def read_metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels, 0 without samples."""
        text = fetch(self.scrape_port, "/metrics").body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


OPEN = "write,read"
COMMITTERS_READY = ("busyapi_committers_ready", "busyapi_lanes_ready")
"""The metric's name, and its name before 0.3: `bench --before` starts older versions."""


CREDENTIALS = ("BUSYAPI_TOKENS_FILE", "BUSYAPI_JWT_KEYS")
"""Settings that give clients credentials."""


class Api(Process):
    """`busyapi api`. Other processes may share its port. Its metrics port is its own.

    Without credentials in its settings every client may write and read.
    """

    def __init__(self, folder: Path, name: str, port: int, settings: Mapping[str, str]) -> None:
        self.port = port
        self.metrics_port = reserve_port()
        ports = {"PORT": str(port), "BUSYAPI_METRICS_PORT": str(self.metrics_port)}
        if settings.keys().isdisjoint(CREDENTIALS):
            settings = {"BUSYAPI_ANONYMOUS": OPEN, **settings}
        elif settings.get("BUSYAPI_ANONYMOUS") == OPEN:
            # The settings of an open process, with credentials added.
            settings = {k: v for k, v in settings.items() if k != "BUSYAPI_ANONYMOUS"}
        super().__init__(folder, name, ["api"], {**settings, **ports})

    @property
    def scrape_port(self) -> int:
        """The port of /metrics."""
        return self.metrics_port

    def is_ready(self) -> bool:
        """Return whether it is ready.

        On a shared port any of the processes may answer /readyz, so this also counts the ready
        committers on the metrics port.
        """
        partitions = int(self.environment.get("BUSYAPI_PARTITIONS", "1"))
        try:
            committers = sum(self.read_metric(name) for name in COMMITTERS_READY)
        except (OSError, HTTPException):
            return False
        return committers == partitions and answers_ok(self.port, "/readyz")


class Flusher(Process):
    """`busyapi flusher --partition N`."""

    def __init__(
        self,
        folder: Path,
        partition: int,
        port: int,
        settings: Mapping[str, str],
        archive_port: int | None = None,
    ) -> None:
        self.partition = partition
        self.port = port
        self.archive_port = archive_port or reserve_port()
        super().__init__(
            folder,
            f"flusher-{partition}",
            ["flusher", "--partition", str(partition)],
            {
                **settings,
                "BUSYAPI_FLUSHER_PORT": str(port),
                "BUSYAPI_ARCHIVE_PORT": str(self.archive_port),
            },
        )

    @property
    def scrape_port(self) -> int:
        """The port of /metrics."""
        return self.port

    def is_ready(self) -> bool:
        """Return whether it is ready."""
        return answers_ok(self.port, "/readyz")


class Stack(ManagedResource):
    """API processes on one port, a flusher for each partition, one archive folder.

    The caller starts the store before the stack and ends it after the stack.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        apis: int = 1,
        partitions: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = reserve_port()
        self.read_headers: dict[str, str] = {}
        """A credential that may read, where one is required."""
        self.partitions = partitions
        self.archive = folder / "archive"
        self.archive.mkdir(parents=True, exist_ok=True)
        archive_ports = [reserve_port() for _ in range(partitions)]
        scheme = "https" if (settings or {}).get("BUSYAPI_ARCHIVE_CERT_FILE") else "http"
        common = {
            "BUSYAPI_DRAIN_DELAY": "0",
            "BUSYAPI_PARTITIONS": str(partitions),
            "BUSYAPI_ARCHIVE_DIR": str(self.archive),
            "BUSYAPI_FLUSHER_URLS": ",".join(f"{scheme}://127.0.0.1:{p}" for p in archive_ports),
            **store.settings(),
            **(settings or {}),
        }
        self.flushers = [
            Flusher(folder, n, reserve_port(), common, port) for n, port in enumerate(archive_ports)
        ]
        self.apis = [Api(folder, f"api-{n}", self.port, common) for n in range(apis)]

    @property
    def processes(self) -> list[Process]:
        """All processes, flushers first."""
        return [*self.flushers, *self.apis]

    def start(self) -> None:
        """Start all and wait until each is ready. An API process waits for its flushers."""
        for process in self.processes:
            process.spawn()
        for process in self.processes:
            process.wait_until_ready()

    def close(self) -> None:
        """End all processes, whatever their state."""
        for process in self.processes:
            process.close()

    def stop(self, seconds: float = 30.0) -> dict[str, int]:
        """Send SIGTERM to all at once, and return their exit codes by name."""
        for process in self.processes:
            process.terminate()
        return {process.name: process.wait(seconds) for process in self.processes}

    def wait_until_archived(self, seconds: float = 30.0) -> None:
        """Wait until the API reports an empty buffer. No client should post meanwhile."""
        wait_until(self._is_buffer_empty, "the buffer to be archived", seconds=seconds)

    def _is_buffer_empty(self) -> bool:
        try:
            answer = fetch(self.port, "/api/usages/count", headers=self.read_headers)
        except (OSError, HTTPException):
            return False
        return answer.status == HTTPStatus.OK and answer.json()["buffered"] == 0

    def check_history(self, history: History) -> Verdict:
        """Compare a history with the archive as it is now on disk."""
        return check_history(history, read_archive(self.archive), partitions=self.partitions)


def answers_ok(port: int, path: str) -> bool:
    """Return whether a GET of this path gets a 200 within two seconds."""
    try:
        return fetch(port, path, seconds=2).status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
