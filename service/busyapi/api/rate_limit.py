"""The rate limits of addresses: a token bucket for each, in this process's own bounded table."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import monotonic
from typing import NamedTuple

from busyapi.api.token_bucket import charge_bucket, refill

MAX_CLIENTS = 100_000
"""Over this, the client that was inactive longest is dropped."""
IPV6_NETWORK_BITS = 64
"""The usual network of one site. A bucket for each of its addresses would be no limit."""
MAX_ADDRESS_LENGTH = 45
"""Characters of the longest address, an IPv6 address that ends as an IPv4 address."""
CACHED_ADDRESSES = 4096


class Excess(NamedTuple):
    """A limit that refuses a request."""

    policy: str
    """What the limit belongs to: `credential`, `tenant` or `address`."""
    seconds: float
    """When the request would be allowed."""

    @property
    def retry_after(self) -> int:
        """Return whole seconds, for the client."""
        return max(1, ceil(self.seconds))


class RateLimiter:
    """Token buckets by name. A bucket refills with time, so only its last state is kept."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._buckets: dict[str, tuple[float, float]] = {}

    def charge(self, name: str, cost: int, *, already_charged: int = 0) -> float:
        """Charge a cost and return 0, or charge nothing and return the seconds to wait."""
        now = monotonic()
        level, updated_at = self._buckets.pop(name, (self._burst, now))
        level = refill(level, now - updated_at, self._rate, self._burst)
        level, seconds = charge_bucket(level, cost, self._rate, self._burst, already_charged)
        self._buckets[name] = (level, now)
        if len(self._buckets) > MAX_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return seconds

    def read_level(self, name: str) -> float:
        """Return how much a bucket has; negative: it is in debt."""
        now = monotonic()
        level, updated_at = self._buckets.get(name, (self._burst, now))
        return refill(level, now - updated_at, self._rate, self._burst)


class RefusedClients:
    """The time until which each client is refused, in a table of the same bounded size."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[str, float]] = {}

    def add(self, name: str, excess: Excess) -> None:
        """Refuse a client until the Retry-After of an excess."""
        self._ends.pop(name, None)
        self._ends[name] = (excess.policy, monotonic() + excess.retry_after)
        if len(self._ends) > MAX_CLIENTS:
            del self._ends[next(iter(self._ends))]

    def find(self, name: str) -> Excess | None:
        """Return what refuses a client now, and for how many more seconds."""
        policy, end = self._ends.get(name, ("", 0.0))
        if end > (now := monotonic()):
            return Excess(policy, end - now)
        self._ends.pop(name, None)
        return None


def client_network(address: str) -> str:
    """Return the part common to one client's addresses: an IPv4 address, or an IPv6 network."""
    bare = address.partition("%")[0]
    # A proxy may forward anything as an address. What is too long for one is not cached.
    return (_find_network(bare) if len(bare) <= MAX_ADDRESS_LENGTH else "") or address


@lru_cache(CACHED_ADDRESSES)
def _find_network(address: str) -> str:
    """Return the network of an address, or "" for other text. Parsing costs 12 µs."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
