"""Rate limits: one token bucket for each client, in a table of bounded size."""

from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic

MAX_CLIENTS = 100_000
"""Over this, the client that was inactive longest is dropped."""
IPV6_NETWORK_BITS = 64
"""The usual network of one site. A bucket for each of its addresses would be no limit."""


class RateLimiter:
    """Token buckets by name. A bucket refills with time, so only its last state is kept."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._buckets: dict[str, tuple[float, float]] = {}

    def charge(
        self, name: str, cost: int, *, already_charged: int = 0, rate: float = 0.0, burst: float = 0
    ) -> float:
        """Charge a cost and return 0, or charge nothing and return the seconds to wait.

        A cost above the burst is charged to a full bucket, which goes into debt: later requests
        wait longer, so the rate holds. `already_charged` is what the same request has paid before.
        A name may have its own `rate` and `burst`.
        """
        now = monotonic()
        rate, burst = (rate, max(1.0, burst)) if rate else (self._rate, self._burst)
        level, updated_at = self._buckets.pop(name, (burst, now))
        level = min(burst, level + (now - updated_at) * rate)
        missing = min(cost + already_charged, burst) - (level + already_charged)
        self._buckets[name] = (level if missing > 0 else level - cost, now)
        if len(self._buckets) > MAX_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return missing / rate if missing > 0 else 0.0

    def read_level(self, name: str) -> float:
        """Return how much a bucket has, by the common rate; negative: it is in debt."""
        now = monotonic()
        level, updated_at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, level + (now - updated_at) * self._rate)


class RefusedClients:
    """The time until which each client is refused, in a table of the same bounded size."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Refuse a client for this time from now."""
        self._ends.pop(name, None)
        self._ends[name] = monotonic() + seconds
        if len(self._ends) > MAX_CLIENTS:
            del self._ends[next(iter(self._ends))]

    def remaining_seconds(self, name: str) -> float:
        """Return for how many more seconds a client is refused, or 0."""
        seconds = self._ends.get(name, 0.0) - monotonic()
        if seconds > 0:
            return seconds
        self._ends.pop(name, None)
        return 0.0


def client_network(address: str) -> str:
    """Return the part common to one client's addresses: an IPv4 address, or an IPv6 network."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
