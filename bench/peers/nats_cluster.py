"""Three NATS servers with JetStream, each message on the disks of a majority, and an HTTP peer."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

from bench.peers.contenders import START_SECONDS, find_program
from bench.peers.nats_http import REPLICAS
from perf.contender import Contender
from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

CONFIG = """\
server_name: "{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
jetstream {{
  store_dir: "{store}"
  sync_interval: always
}}
cluster {{
  name: bench
  listen: "127.0.0.1:{route_port}"
  routes: [{routes}]
}}
"""
"""`sync_interval: always`: the log of the stream's Raft group is synced before each answer."""


class NatsServer(Child):
    """One server. Its name, ports and folder stay the same over restarts."""

    def __init__(self, folder: Path, number: int, route_ports: list[int]) -> None:
        self.name = f"nats-{number}"
        folder = folder / self.name
        folder.mkdir(parents=True)
        self.port, self.monitor_port = reserve_port(), reserve_port()
        self._store = folder / "store"
        config = folder / "nats.conf"
        config.write_text(
            CONFIG.format(
                name=self.name,
                port=self.port,
                monitor_port=self.monitor_port,
                store=self._store,
                route_port=route_ports[number],
                routes=", ".join(f'"nats://127.0.0.1:{port}"' for port in route_ports),
            )
        )
        super().__init__(
            [find_program("nats-server"), "--config", config], log=folder / "server.log"
        )

    def lose(self) -> None:
        """Kill it and delete its volume."""
        self.kill9()
        shutil.rmtree(self._store)

    def is_healthy(self) -> bool:
        """Return whether its streams have what their leaders have."""
        try:
            return fetch(self.monitor_port, "/healthz", seconds=2).status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def is_leading(self) -> bool:
        """Return whether it says that it leads a stream."""
        try:
            report = fetch(self.monitor_port, "/jsz?streams=true", seconds=2).json()
        except (OSError, HTTPException, ValueError):
            return False
        return any(
            stream["cluster"].get("leader") == self.name
            for account in report.get("account_details", [])
            for stream in account.get("stream_detail", [])
        )


class NatsCluster(Contender):
    """Three servers and an HTTP peer, which creates the stream."""

    dependencies = frozenset(f"nats-{n}" for n in range(REPLICAS))

    def __init__(self, folder: Path, *, has_group_commit: bool = False) -> None:
        route_ports = [reserve_port() for _ in range(REPLICAS)]
        self.servers = [NatsServer(folder, n, route_ports) for n in range(REPLICAS)]
        self.port = reserve_port()
        self._folder = folder
        self._has_group_commit = has_group_commit
        self._running = ExitStack()

    @cached_property
    def peer(self) -> Child:
        """Return the HTTP peer's process."""
        servers = " ".join(f"nats://127.0.0.1:{server.port}" for server in self.servers)
        options = (
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--interface",
            "rsgi",
            "--no-ws",
        )
        return Child(
            [sys.executable, "-m", "granian", *options, "bench.peers.nats_http:app"],
            log=self._folder / "peer.log",
            environment=os.environ
            | {"NATS_SERVERS": servers}
            | ({"NATS_GROUP": "1"} if self._has_group_commit else {}),
        )

    @property
    def processes(self) -> dict[str, Child]:
        """Return the peer and the servers."""
        return {"peer": self.peer, **{server.name: server for server in self.servers}}

    def versions(self) -> dict[str, str]:
        """Return the versions of the software."""
        run = subprocess.run(
            [find_program("nats-server"), "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return {
            "nats-server": run.stdout.split()[-1].removeprefix("v"),
            **{name: version(name) for name in ("nats-py", "granian")},
        }

    def start(self) -> None:
        """Start all processes; wait until the peer has created the stream on each server."""
        for server in self.servers:
            self._running.enter_context(server)
        self._running.enter_context(self.peer)
        wait_until(self._answers, f"{self.peer} to answer", seconds=2 * START_SECONDS)
        self.wait_until_healthy()

    def close(self) -> None:
        """Stop all. SIGTERM first: only the peer can stop its worker."""
        if self.peer.is_running:
            self.peer.stop()
        self._running.close()

    def _answers(self) -> bool:
        for process in self.processes.values():
            process.check_alive()
        try:
            return fetch(self.port, "/").status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def wait_until_healthy(self, seconds: float = 60.0) -> None:
        """Wait until each server has what its leaders have, and one leads the stream."""
        wait_until(
            lambda: all(server.is_healthy() for server in self.servers) and self.find_leaders(),
            f"{self} to be healthy",
            seconds=seconds,
        )

    def find_leaders(self) -> list[NatsServer]:
        """Return the servers that say they lead the stream: one, or none during an election."""
        return [server for server in self.servers if server.is_leading()]
