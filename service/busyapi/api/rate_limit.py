"""How often each client may do something: token buckets, one a name, in a table with a bound."""

from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic

MAX_CLIENTS = 100_000
"""The longest silent is forgotten first."""
IPV6_NETWORK_BITS = 64
"""What one site is given: each of its addresses in a bucket of its own would be no limit."""


class RateLimiter:
    """A bucket for each name. It refills with time, so only its last state is kept."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._buckets: dict[str, tuple[float, float]] = {}

    def charge(self, name: str, cost: int, *, already_charged: int = 0) -> float:
        """Charge a cost; return 0, or after how many seconds it could be, with nothing charged.

        A cost above the burst is charged to a full bucket, into debt: what follows waits longer,
        so the rate holds. `already_charged` is a part of the same request that is charged already.
        """
        now = monotonic()
        left, since = self._buckets.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        missing = min(cost + already_charged, self._burst) - (left + already_charged)
        self._buckets[name] = (left if missing > 0 else left - cost, now)
        if len(self._buckets) > MAX_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return missing / self._rate if missing > 0 else 0.0


class Holds:
    """Until when each name is refused something, in a table with the same bound."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Refuse a name for this time from now."""
        self._ends.pop(name, None)
        self._ends[name] = monotonic() + seconds
        if len(self._ends) > MAX_CLIENTS:
            del self._ends[next(iter(self._ends))]

    def left(self, name: str) -> float:
        """Return for how many seconds a name is still refused; 0 if it is not."""
        left = self._ends.get(name, 0.0) - monotonic()
        if left > 0:
            return left
        self._ends.pop(name, None)
        return 0.0


def client_network(address: str) -> str:
    """Return what one client's addresses have in common: an IPv4 address, or an IPv6 network."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
