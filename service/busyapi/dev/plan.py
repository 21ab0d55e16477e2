"""What is to run: names, ports, folders and settings, all known before anything is started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from busyapi.errors import ConfigError
from busyapi.settings import Settings

HIGHEST_PORT = 65_535


class Port(NamedTuple):
    """A port that will be opened."""

    number: int
    use: str
    setting: str
    """What to change for another one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One `busyapi dev`."""

    port: int
    processes: int
    partitions: int
    state: Path
    redis_url: str
    """Empty: a Valkey of our own."""
    settings: Settings
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            ConfigError: ports overlap or do not exist, or the tier needs another server.
        """
        seen: dict[int, Port] = {}
        for each in self.ports():
            if not 1 <= each.number <= HIGHEST_PORT:
                raise ConfigError(f"{each.use} would be port {each.number}: change {each.setting}")
            if other := seen.get(each.number):
                raise ConfigError(
                    f"{each.use} and {other.use} would both be port {each.number}:"
                    f" change {each.setting}"
                )
            seen[each.number] = each
        if self.settings.durability == "replicated" and not self.redis_url:
            raise ConfigError(
                "BUSYAPI_DURABILITY=replicated needs a server with a replica: give it by --redis"
            )

    def ports(self) -> list[Port]:
        """Give every port that the processes will open, Valkey's left out."""
        api = Port(self.port, "the API", "--port")
        metrics = [
            Port(self.metrics_port(n), f"the metrics of api-{n}", "BUSYAPI_METRICS_PORT")
            for n in range(self.processes)
        ]
        flushers = [
            Port(self.flusher_port(p), f"flusher-{p}", "BUSYAPI_FLUSHER_PORT")
            for p in range(self.partitions)
        ]
        return [api, *metrics, *flushers]

    def metrics_port(self, process: int) -> int:
        """Give the metrics port of an API process."""
        return self.settings.metrics_port + process

    def flusher_port(self, partition: int) -> int:
        """Give the port of a flusher."""
        return self.settings.flusher_port + partition

    def child_environment(self, redis_url: str) -> dict[str, str]:
        """Give what all API processes and flushers share."""
        urls = [f"http://127.0.0.1:{self.flusher_port(p)}" for p in range(self.partitions)]
        shared = {
            "PORT": str(self.port),
            "BUSYAPI_PARTITIONS": str(self.partitions),
            "BUSYAPI_REDIS_URL": redis_url,
            "BUSYAPI_FLUSHER_URLS": ",".join(urls),
            "BUSYAPI_ARCHIVE_DIR": str(self.state / "archive"),
            # Nobody routes to these processes by their readiness.
            "BUSYAPI_DRAIN_DELAY": "0",
        }
        if not self.redis_url:
            # Our Valkey knows no user; a login meant for another server would be refused.
            logins = ("USERNAME", "PASSWORD", "PASSWORD_FILE", "CA_FILE")
            shared |= {f"BUSYAPI_REDIS_{each}": "" for each in logins}
        return {**self.environment, **shared}
