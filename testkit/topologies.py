"""Groups of servers: a primary and its replicas with three sentinels, and a cluster."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster

from testkit.certificates import Certificates
from testkit.child_process import Child, ManagedResource
from testkit.ports import reserve_port
from testkit.proxy import Proxy
from testkit.servers import (
    Flavour,
    Server,
    find_program,
    make_tls_lines,
    make_tls_options,
)
from testkit.waiting import wait_until

SLOTS = 16_384


class Sentinel(Child):
    """One sentinel process that monitors `primary` under the name `service`.

    `acl` has the lines of its own users, of which the Sentinels use the first to ask each other.
    TLS is that of `primary`.
    """

    def __init__(
        self,
        folder: Path,
        primary: Server,
        service: str,
        down_after_ms: int,
        *,
        password: str = "",
        acl: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True)
        self.port = reserve_port()
        lines = [
            *self._make_port_lines(primary),
            *self._make_login_lines(password, acl),
            "bind 127.0.0.1",
            "protected-mode no",
            f"dir {folder}",
            f"sentinel monitor {service} 127.0.0.1 {primary.announced_port} 2",
            f"sentinel down-after-milliseconds {service} {down_after_ms}",
            # A stuck failover is tried again after twice this time.
            f"sentinel failover-timeout {service} 3000",
        ]
        if primary.username:
            lines.append(f"sentinel auth-user {service} {primary.username}")
        if primary.password:
            lines.append(f"sentinel auth-pass {service} {primary.password}")
        # Sentinel rewrites this file with the state that it discovers.
        path = folder / "sentinel.conf"
        path.write_text("".join(f"{line}\n" for line in lines))
        argv: list[str | Path] = [find_program(primary.flavour), path, "--sentinel"]
        super().__init__(argv, log=folder / "sentinel.log")
        self.client = redis.Redis(
            port=self.port,
            username=acl[0].split()[1] if acl else None,
            password=password or None,
            decode_responses=True,
            **make_tls_options(primary.certificates),
        )

    def _make_port_lines(self, primary: Server) -> list[str]:
        if not primary.certificates:
            return [f"port {self.port}"]
        clients = primary.client_certificates
        return make_tls_lines(self.port, primary.certificates, clients=clients)

    @staticmethod
    def _make_login_lines(password: str, acl: Sequence[str]) -> list[str]:
        if acl:
            user = acl[0].split()[1]
            return [*acl, f"sentinel sentinel-user {user}", f"sentinel sentinel-pass {password}"]
        return [f"requirepass {password}", f"sentinel sentinel-pass {password}"] if password else []

    def close(self) -> None:
        """End it."""
        super().close()
        self.client.close()


class SentinelSet(ManagedResource):
    """A primary, its replicas and three sentinels, two of which must agree.

    `sentinel_password` is that of the Sentinels' default user, or of the first user of
    `sentinel_acl`. With `links`, each server is reached through its own one.
    """

    service = "busyapi"

    def __init__(
        self,
        folder: Path,
        flavour: Flavour = "valkey",
        *,
        config: Sequence[str] = (),
        password: str = "",
        down_after_ms: int = 1000,
        replicas: int = 1,
        sentinel_password: str = "",
        sentinel_acl: Sequence[str] = (),
        certificates: Certificates | None = None,
        links: Sequence[Proxy] = (),
    ) -> None:
        self.folder = folder
        self.down_after_ms = down_after_ms
        self.sentinel_password, self.sentinel_acl = sentinel_password, sentinel_acl
        if password:
            # A primary that returns becomes a replica, and must be able to log in.
            config = [*config, f"masterauth {password}"]
        server = partial(
            Server,
            flavour=flavour,
            config=config,
            password=password,
            certificates=certificates,
            client_certificates=certificates is not None,
        )
        ports = [link.port for link in links] or [0] * (1 + replicas)
        first = server(folder / "first", announced_port=ports[0])
        names = ("second", "third")[:replicas]
        self.servers = [
            first,
            *(
                server(folder / name, replica_of=first, announced_port=port)
                for name, port in zip(names, ports[1:], strict=True)
            ),
        ]
        for member, link in zip(self.servers, links, strict=False):
            link.target = member.port
        self.sentinels: list[Sentinel] = []

    def __repr__(self) -> str:
        return f"<sentinels over {self.servers}, logs in {self.folder}>"

    @property
    def url(self) -> str:
        """The addresses of the sentinels, and the name of the service."""
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        scheme = "rediss" if self.servers[0].certificates else "redis"
        return f"{scheme}+sentinel://{addresses}/{self.service}"

    def settings(self) -> dict[str, str]:
        """Return the settings with which busyapi connects to these sentinels."""
        settings = self.servers[0].settings() | {"BUSYAPI_REDIS_URL": self.url}
        if self.sentinel_password:
            settings["BUSYAPI_REDIS_SENTINEL_PASSWORD"] = self.sentinel_password
        if self.sentinel_acl:
            settings["BUSYAPI_REDIS_SENTINEL_USERNAME"] = self.sentinel_acl[0].split()[1]
        return settings

    def start(self) -> None:
        """Start all and wait until every sentinel knows the replicas and the two others."""
        for server in self.servers:
            server.start()
        # Created only now: a sentinel that starts before its primary reports the primary down.
        for n in range(3):
            folder = self.folder / f"sentinel-{n}"
            self.sentinels.append(
                Sentinel(
                    folder,
                    self.servers[0],
                    self.service,
                    self.down_after_ms,
                    password=self.sentinel_password,
                    acl=self.sentinel_acl,
                )
            )
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            wait_until(partial(self._knows_all, sentinel), f"{self} to find each other", seconds=20)

    def _knows_all(self, sentinel: Sentinel) -> bool:
        sentinel.check_alive()
        try:
            state: Any = sentinel.client.sentinel_master(self.service)
        except redis.RedisError:
            return False
        replicas = len(self.servers) - 1
        return bool(state["num-slaves"] == replicas and state["num-other-sentinels"] == 2)

    def primary(self) -> Server:
        """Return the server that most sentinels name as the primary."""
        ports = [self._ask_primary(sentinel) for sentinel in self.sentinels if sentinel.is_running]
        return next(
            server for server in self.servers if ports.count(server.announced_port) * 2 > len(ports)
        )

    def _ask_primary(self, sentinel: Sentinel) -> int:
        address: Any = sentinel.client.sentinel_get_master_addr_by_name(self.service)
        return int(address[1]) if address else 0

    def tolerate_silence(self, seconds: int) -> None:
        """Find a server down only after this time from now on."""
        for sentinel in self.sentinels:
            sentinel.client.sentinel_set(
                self.service, "down-after-milliseconds", str(seconds * 1000)
            )

    def other(self, server: Server) -> Server:
        """Return the other of the two servers."""
        return self.servers[1 - self.servers.index(server)]

    def wait_for_failover(self, old: Server, seconds: float = 30.0) -> Server:
        """Wait until two sentinels name another server and it is a primary; return it."""
        wait_until(
            lambda: self._find_new_primary(old),
            f"{self} to make another than {old} the primary",
            seconds=seconds,
        )
        return self.primary()

    def _find_new_primary(self, old: Server) -> Server | None:
        # One Sentinel may name a former primary for as long as that is down: it waits for it.
        ports = [self._ask_primary(sentinel) for sentinel in self.sentinels]
        for server in self.servers:
            if server is not old and ports.count(server.announced_port) > 1:
                return server if server.replication()["role"] == "master" else None
        return None

    def close(self) -> None:
        """End all, whatever their state."""
        for sentinel in self.sentinels:
            sentinel.close()
        for server in self.servers:
            server.close()


class ClusterOfThree(ManagedResource):
    """Three primaries that share the slots, each with a replica on request."""

    def __init__(
        self,
        folder: Path,
        flavour: Flavour = "valkey",
        *,
        config: Sequence[str] = (),
        replicas: bool = False,
    ) -> None:
        self.folder = folder
        self.primaries = [self._node(f"primary-{n}", flavour, config) for n in range(3)]
        self.replicas = [self._node(f"replica-{n}", flavour, config) for n in range(3 * replicas)]
        self._client: RedisCluster | None = None

    def _node(self, name: str, flavour: Flavour, config: Sequence[str]) -> Server:
        return Server(
            self.folder / name,
            flavour,
            config=[
                "cluster-enabled yes",
                f"cluster-port {reserve_port()}",
                "cluster-config-file nodes.conf",
                "cluster-node-timeout 2000",
                *config,
            ],
        )

    def __repr__(self) -> str:
        return f"<cluster of {self.nodes}, logs in {self.folder}>"

    @property
    def nodes(self) -> list[Server]:
        """All servers, primaries first, as they were at the start."""
        return self.primaries + self.replicas

    @property
    def url(self) -> str:
        """The addresses of the first primaries."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.primaries)

    def settings(self) -> dict[str, str]:
        """Return the settings with which busyapi connects to this cluster."""
        return {"BUSYAPI_REDIS_URL": self.url}

    def start(self) -> None:
        """Start the nodes, assign the slots, and wait until every node reports them complete."""
        for node in self.nodes:
            node.start()
        for n, node in enumerate(self.primaries):
            first, last = SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1
            node.command("CLUSTER ADDSLOTSRANGE", first, last)
        for n, node in enumerate(self.nodes):
            # Different epochs from the start. Otherwise the nodes resolve epoch conflicts first.
            node.command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes:
            self._introduce(node)
        self.wait_until_complete()
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            replica.command("CLUSTER REPLICATE", primary.command("CLUSTER MYID"))
            wait_until(partial(_is_synced, replica), f"{replica} to have its primary's data")

    def _introduce(self, node: Server) -> None:
        bus = node.client().config_get("cluster-port")["cluster-port"] or 0
        for other in self.nodes:
            if other is not node:
                other.command("CLUSTER MEET", "127.0.0.1", node.port, bus)

    def wait_until_complete(self, seconds: float = 20.0) -> None:
        """Wait until every running node knows all others and every slot is served."""
        wait_until(
            lambda: all(self._is_complete(node) for node in self.nodes if node.is_running),
            f"{self} to be complete",
            seconds=seconds,
        )

    def _is_complete(self, node: Server) -> bool:
        info: dict[str, str] = node.client().cluster("INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes))

    def client(self) -> RedisCluster:
        """Return a client of the whole cluster for assertions."""
        if self._client is None:
            node = next(node for node in self.nodes if node.is_running)
            self._client = RedisCluster.from_url(node.url, decode_responses=True)
        return self._client

    def primary_of(self, key: str) -> Server:
        """Return the server that now holds the slot of a key."""
        running = next(node for node in self.nodes if node.is_running)
        slot = running.command("CLUSTER KEYSLOT", key)
        for first, last, (_, port, *_), *_ in running.command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"no node of {self} holds slot {slot}")

    def close(self) -> None:
        """End all nodes, whatever their state."""
        if self._client is not None:
            self._client.close()
        for node in self.nodes:
            node.close()


def _is_synced(replica: Server) -> bool:
    return replica.replication().get("master_link_status") == "up"
