"""Trusted proxies: those whose headers about a client's address and certificate are used."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from busyapi.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_FORWARDED = 32
"""Addresses of X-Forwarded-For that are read, from the last one."""


class TrustedProxies:
    """The networks of BUSYAPI_TRUSTED_PROXIES."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        self.includes = lru_cache(maxsize=1024)(self._includes)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _includes(self, address: str) -> bool:
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def find_client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """Return the client's address, from the peer and the values of X-Forwarded-For.

        Each proxy appends the address that it sees. So the last address that is no trusted proxy's
        is the client's, and what is before it may be forged.
        """
        if not self._networks or not self.includes(peer):
            return peer
        client = peer
        for entry in reversed(",".join(forwarded_for).rsplit(",", MAX_FORWARDED)[-MAX_FORWARDED:]):
            parsed = parse_address(_without_port(entry.strip(" \t")))
            if parsed is None:
                break
            client = str(parsed)
            if not self.includes(client):
                break
        return client


def parse_trusted_proxies(text: str) -> TrustedProxies:
    """Parse the setting.

    Raises:
        ConfigError: an entry is no network.
    """
    networks = []
    for entry in text.split(","):
        if not entry.strip():
            continue
        try:
            networks.append(ip_network(entry.strip()))
        except ValueError:
            raise ConfigError(
                f"BUSYAPI_TRUSTED_PROXIES: {entry.strip()!r} is not a network; write addresses or"
                " networks such as 10.1.0.0/16, separated by commas"
            ) from None
    return TrustedProxies(networks)


def parse_address(text: str) -> Address | None:
    """Return the address of a text, or None. IPv4 within IPv6 is IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(entry: str) -> str:
    """Return the address of `1.2.3.4:80` or `[::1]:80`, as some proxies append it."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
