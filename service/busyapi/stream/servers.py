"""The servers of an installation, and which of them has which partition.

BUSYAPI_REDIS_URL is one URL, or several with the partitions of each:

    redis://one:6379                                    one server with all partitions
    0-1=redis://one:6379 2-3,6=redis://two:6379         two servers

A partition never moves to another server: usages may wait on its own. The archive records the
server of its partition by the lowest partition that is there, because an address may change.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from busyapi.errors import ConfigError, NoServer
from busyapi.stream.endpoint import Endpoint

_ENTRY = re.compile(r"([0-9][0-9,-]*)=(.*)")
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_EXAMPLE = "0-1=redis://one:6379 2-3=redis://two:6379"


@dataclass(frozen=True, kw_only=True)
class RedisServers:
    """The server of each partition. Servers with Sentinels are one, and so is a cluster."""

    only: Endpoint | None = None
    """The server of all partitions; None if each has its own in `listed`."""
    listed: Mapping[int, Endpoint] = field(default_factory=dict)

    def find(self, partition: int) -> Endpoint:
        """Return the server of a partition.

        Raises:
            NoServer: it has none.
        """
        endpoint = self.only or self.listed.get(partition)
        if endpoint is None:
            raise NoServer(f"BUSYAPI_REDIS_URL names no server for partition {partition}")
        return endpoint

    def require(self, partitions: Iterable[int]) -> None:
        """Check that each of these partitions has a server.

        Raises:
            ConfigError: one has none.
        """
        for partition in partitions:
            if not self.only and partition not in self.listed:
                raise ConfigError(
                    f"BUSYAPI_REDIS_URL names no server for partition {partition}: add it to one"
                )

    def list_others(self, partition: int) -> list[Endpoint]:
        """Return the servers that do not have a partition."""
        own = self.find(partition)
        return [endpoint for endpoint in dict.fromkeys(self.listed.values()) if endpoint != own]


def parse_servers(text: str, parse_url: Callable[[str], Endpoint]) -> RedisServers:
    """Parse BUSYAPI_REDIS_URL, with `parse_url` for each URL in it.

    Raises:
        ConfigError: a URL or the partitions of a server cannot be used. The message quotes no URL,
            because it may have a password.
    """
    entries = text.split()
    if len(entries) < 2 and not _ENTRY.match(text):  # noqa: PLR2004 - one URL
        return RedisServers(only=parse_url(text))
    listed: dict[int, Endpoint] = {}
    addresses: set[tuple[object, ...]] = set()
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigError(
                f"BUSYAPI_REDIS_URL names several servers, so each needs its partitions: {_EXAMPLE}"
            )
        partitions = _parse_partitions(match[1])
        endpoint = replace(parse_url(match[2]), first_partition=min(partitions))
        if twice := [number for number in partitions if number in listed]:
            raise ConfigError(f"BUSYAPI_REDIS_URL names two servers for partition {twice[0]}")
        for host in endpoint.hosts:
            if (address := (endpoint.service, *host)) in addresses:
                raise ConfigError(
                    f"BUSYAPI_REDIS_URL names {host[0]}:{host[1]} twice: put all partitions of a"
                    " server before one URL, such as 0-1,4-5=redis://one:6379"
                )
            addresses.add(address)
        listed |= dict.fromkeys(partitions, endpoint)
    return RedisServers(listed=listed)


def _parse_partitions(text: str) -> list[int]:
    partitions: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigError(
                f"BUSYAPI_REDIS_URL: {text} is not a list of partitions, such as 0-1,4-5"
            )
        partitions += range(first, last + 1)
    return partitions
