"""The plan of a run: names, ports, folders and settings, all known before anything starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from busyapi.errors import ConfigError
from busyapi.settings import Settings

MAX_PORT = 65_535
LOOPBACK = "127.0.0.1"
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - only if it is typed


class Port(NamedTuple):
    """A port that will be opened."""

    number: int
    use: str
    setting: str
    """The option or the environment variable that sets it."""
    first: int
    siblings: int
    """The number of consecutive ports, of which the setting names the first."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one `busyapi dev`."""

    host: str = LOOPBACK
    """The address at which the API's processes listen. Flushers listen on this machine only."""
    port: int
    processes: int
    partitions: int
    """The number of partitions to which the API posts."""
    state: Path
    redis_url: str
    """Empty: start a Valkey."""
    settings: Settings
    environment: Mapping[str, str]
    has_lake: bool = False
    """Whether to keep an Iceberg table of the usages."""
    existing: int = 0
    """The number of partitions that the folder has already. Those that left keep their flushers."""

    def __post_init__(self) -> None:
        """Refuse a plan that cannot run.

        Raises:
            ConfigError: ports overlap or do not exist, or the tier needs another server.
        """
        used: dict[int, Port] = {}
        for port in self.ports():
            if not 1 <= port.number <= MAX_PORT:
                raise ConfigError(f"{port.use} would be port {port.number}: change {port.setting}")
            if other := used.get(port.number):
                raise ConfigError(
                    f"{port.use} and {other.use} would both be port {port.number}:"
                    f" change {port.setting}"
                )
            used[port.number] = port
        try:
            ip_address(self.host)
        except ValueError:
            raise ConfigError(f"--host {self.host!r} is not an IP address") from None
        if self.settings.durability == "replicated" and not self.redis_url:
            raise ConfigError(
                "BUSYAPI_DURABILITY=replicated needs a server with a replica: name it with --redis"
            )

    def ports(self) -> list[Port]:
        """Return every port that the processes will open, without that of Valkey."""
        metrics, flusher = self.settings.metrics_port, self.settings.flusher_port
        return [
            Port(self.port, "the API", "--port", self.port, 1),
            *(
                Port(number, f"the metrics of api-{n}", "BUSYAPI_METRICS_PORT", metrics, count)
                for count in [self.processes]
                for n, number in enumerate(range(metrics, metrics + count))
            ),
            *(
                Port(number, f"flusher-{n}", "BUSYAPI_FLUSHER_PORT", flusher, count)
                for count in [self.flushers]
                for n, number in enumerate(range(flusher, flusher + count))
            ),
            *(
                Port(number, "the metrics of the lake", "BUSYAPI_LAKE_METRICS_PORT", number, 1)
                for number in [self.settings.lake_metrics_port]
                if self.has_lake
            ),
        ]

    @property
    def flushers(self) -> int:
        """Return the number of flushers."""
        return max(self.partitions, self.existing)

    @property
    def reachable_host(self) -> str:
        """Return an address at which this machine reaches the API."""
        return LOOPBACK if self.host in ALL_ADDRESSES else self.host

    @property
    def url_host(self) -> str:
        """Return the API's host for a URL on this machine."""
        if self.host in {LOOPBACK, *ALL_ADDRESSES}:
            return "localhost"
        return f"[{self.host}]" if ":" in self.host else self.host

    def metrics_port(self, process: int) -> int:
        """Return the metrics port of an API process."""
        return self.settings.metrics_port + process

    def flusher_port(self, partition: int) -> int:
        """Return the port of a flusher."""
        return self.settings.flusher_port + partition

    @property
    def archive_secret(self) -> Path:
        """Return the file with the secret that API processes and flushers share."""
        return self.state / "archive-secret"

    def child_environment(self, redis_url: str, archive_ports: Sequence[int]) -> dict[str, str]:
        """Return the environment of API processes and flushers."""
        urls = [f"http://127.0.0.1:{port}" for port in archive_ports]
        tls = ("CERT", "KEY", "CA", "CLIENT_CA", "CLIENT_CERT", "CLIENT_KEY")
        shared = {
            **{f"BUSYAPI_ARCHIVE_{name}_FILE": "" for name in tls},
            "BUSYAPI_ARCHIVE_SECRET_FILE": str(self.archive_secret),
            "PORT": str(self.port),
            "BUSYAPI_HOST": LOOPBACK,
            "BUSYAPI_PARTITIONS": str(self.partitions),
            "BUSYAPI_REDIS_URL": redis_url,
            "BUSYAPI_FLUSHER_URLS": ",".join(urls),
            "BUSYAPI_ARCHIVE_DIR": str(self.state / "archive"),
            # No load balancer watches the readiness of these processes.
            "BUSYAPI_DRAIN_DELAY": "0",
        }
        if not self.redis_url:
            # The Valkey started here has no users: it would refuse a login for another server.
            logins = ("USERNAME", "PASSWORD", "PASSWORD_FILE")
            names = (*logins, *(f"SENTINEL_{name}" for name in logins), "TRUST")
            files = ("CA_FILE", "CERT_FILE", "KEY_FILE")
            shared |= {f"BUSYAPI_REDIS_{name}": "" for name in (*names, *files)}
        if not self.settings.has_credentials and not self.settings.anonymous:
            shared["BUSYAPI_ANONYMOUS"] = "write,read"
        return {**self.environment, **shared}
