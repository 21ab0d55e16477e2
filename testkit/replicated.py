"""A primary with two replicas under Sentinels, and a stack in the tier `replicated` under load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis

from busyapi.archive.holders import read_holders
from testkit.archive.command import run_verify
from testkit.checker import Verdict
from testkit.history import History
from testkit.load import Load
from testkit.processes import Stack
from testkit.proxy import Proxy
from testkit.servers import Flavour, Server
from testkit.topologies import SentinelSet
from testkit.waiting import wait_until

SILENCE_SECONDS = 3
"""How long a primary keeps a silent replica (`repl-timeout`). Commits wait for it until then."""
UNPROMOTABLE = ("replica-priority 0",)
CONFIG = (*UNPROMOTABLE, "repl-ping-replica-period 1", f"repl-timeout {SILENCE_SECONDS}")
SETTINGS = {
    "BUSYAPI_DURABILITY": "replicated",
    "BUSYAPI_REPLICAS": "2",
    "BUSYAPI_BOUND": "10000",
    "BUSYAPI_COMMIT_DEADLINE": "3",
}
KINDS = ((0, False), (0, True), (20, False), (20, True))
"""Batch size (0: single) and use of keys, for every kind of post."""
STEP_SECONDS = 60
SERVERS = 3
RESYNC_SECONDS = 20
"""How long the primary takes to send a copy: longer than it lives after that."""

EndFault = Callable[[], object]
Fault = Callable[[Server, Server], EndFault]


class LoadedStack:
    """A stack under load, and the history of that load."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.history = History()
        self._folder, self._settings = folder, SETTINGS | dict(settings)
        self._stack: Stack | None = None

    @property
    def stack(self) -> Stack:
        """The processes; they exist while this runs, because they must know the servers."""
        assert self._stack
        return self._stack

    @contextmanager
    def posting(self) -> Iterator[None]:
        """Post usages of every kind."""
        with ExitStack() as loads:
            for batch, keys in KINDS:
                load = Load(
                    self.stack.port, connections=1, batch=batch, keys=keys, history=self.history
                )
                loads.enter_context(load)
            self.wait_for_usages()
            yield

    def wait_for_usages(self, count: int = 20) -> None:
        """Wait until further requests are acknowledged."""
        goal = self.history.acknowledged + count
        wait_until(lambda: self.history.acknowledged >= goal, "usages", seconds=STEP_SECONDS)

    def finish(self) -> Verdict:
        """Archive everything, stop, and compare the archive with the answers."""
        self.stack.wait_until_archived(STEP_SECONDS)
        codes = self.stack.stop()
        if set(codes.values()) != {0} or run_verify(self.stack.archive) != 0:
            raise RuntimeError(f"the archive is damaged, or a process failed: {codes}")
        return self.stack.check_history(self.history)


class ReplicatedStack(LoadedStack):
    """Three servers, three Sentinels and a stack."""

    def __init__(
        self,
        folder: Path,
        flavour: Flavour,
        build: Mapping[str, str] | None = None,
        *,
        links: Sequence[Proxy] = (),
    ) -> None:
        super().__init__(folder, build or {})
        self.sentinels = SentinelSet(
            folder / "sentinels", flavour, config=CONFIG, replicas=2, links=links
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything, and wait until all three servers hold everything."""
        with self.sentinels:
            self._stack = self._make_stack()
            with self._stack:
                self.wait_for_holders()
                yield

    def _make_stack(self) -> Stack:
        return Stack(self._folder / "stack", self.sentinels, settings=self._settings)

    def holders(self) -> set[Server]:
        """Return the servers that the archive names as holders of every usage."""
        named = read_holders(self.stack.archive / "p00").processes
        return {
            server
            for server in self.sentinels.servers
            if f"127.0.0.1:{server.announced_port}" in named
        }

    def replicas(self) -> list[Server]:
        """Return the servers that are not the primary."""
        primary = self.sentinels.primary()
        return [server for server in self.sentinels.servers if server is not primary]

    def wait_for_holders(self, seconds: float = STEP_SECONDS) -> None:
        """Wait until all servers hold everything, and all replicas confirm."""
        wait_until(self._is_complete, "all servers to hold everything", seconds=seconds)

    def _is_complete(self) -> bool:
        # Until it is ready, and without enough replicas, former holders stay on record.
        (flusher,) = self.stack.flushers
        if not flusher.is_ready():
            return False
        confirming = flusher.read_metric("busyapi_replicas_confirming", partition="0")
        return confirming == SERVERS - 1 and len(self.holders()) == SERVERS


def lose(server: Server) -> None:
    """Kill a server and delete its volume."""
    server.kill9()
    server.wipe()


def return_to(server: Server, primary: Server) -> None:
    """Start a server, which may have lost its data, as a replica, as an orchestrator does."""
    start_as_replica(server, primary)
    wait_until(partial(_is_following, server), f"{server} to follow {primary}")


def start_as_replica(server: Server, primary: Server) -> None:
    """Start a server as a replica from its first moment on.

    Sentinels assume the default priority for a server that starts as a primary.
    """
    path = server.folder / "server.conf"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("replicaof")]
    lines.append(f"replicaof 127.0.0.1 {primary.announced_port}")
    path.write_text("".join(f"{line}\n" for line in lines))
    server.spawn()


def _is_following(server: Server) -> bool:
    try:
        return bool(server.replication()["role"] == "slave")
    except redis.RedisError:
        return False


def _is_copying(replica: Server) -> bool:
    return bool(replica.replication()["master_sync_in_progress"])


class ReplicaFaults:
    """Faults of one replica. Each begins at once, and returns what ends it."""

    def __init__(self, stack: LoadedStack, running: ExitStack) -> None:
        self._stack, self._running = stack, running
        self.kinds: list[Fault] = [
            self.none,
            self.pause,
            self.lag,
            self.cut_off,
            self.return_without_data,
            self.resync,
        ]

    def none(self, replica: Server, primary: Server) -> EndFault:
        """Do nothing."""
        del replica, primary
        return lambda: None

    def pause(self, replica: Server, primary: Server) -> EndFault:
        """Stop its process."""
        del primary
        replica.pause()
        return replica.resume

    def lag(self, replica: Server, primary: Server) -> EndFault:
        """Delay all bytes between it and its primary."""
        link = self._connect_by_proxy(replica, primary)
        link.latency = 0.3
        return link.close

    def cut_off(self, replica: Server, primary: Server) -> EndFault:
        """Drop all bytes from its primary. It confirms what came before."""
        link = self._connect_by_proxy(replica, primary)
        wait_until(lambda: link.connections, f"{replica} to connect")
        self._stack.wait_for_usages()
        link.mute()
        return link.close

    def return_without_data(self, replica: Server, primary: Server) -> EndFault:
        """Delete its data, so that it copies everything, which takes less than a second."""
        lose(replica)
        return_to(replica, primary)
        return lambda: None

    def resync(self, replica: Server, primary: Server) -> EndFault:
        """Delete its data, and let it copy for as long as the primary lives."""
        lose(replica)
        delay_us = RESYNC_SECONDS * 1_000_000 // primary.command("DBSIZE")
        primary.command("CONFIG", "SET", "rdb-key-save-delay", delay_us)
        return_to(replica, primary)
        wait_until(partial(_is_copying, replica), f"{replica} to copy from {primary}")
        return lambda: None

    def _connect_by_proxy(self, replica: Server, primary: Server) -> Proxy:
        link = self._running.enter_context(Proxy(primary.port))
        # Not written to its configuration: Sentinels correct it after some seconds.
        replica.command("REPLICAOF", "127.0.0.1", link.port)
        return link
