"""How many usages a client may send: the rates of its credential, its tenant or its address.

The rates of credentials and tenants hold over all processes. That of an address, for clients
without a credential, is this process's own.
"""

from collections.abc import Callable
from time import monotonic

from busyapi.api.portion_pool import PortionPool
from busyapi.api.rate_headers import Limit, describe_bucket, render_policy
from busyapi.api.rate_limit import Excess, RateLimiter, client_network
from busyapi.api.rate_portion import BURST_SECONDS, Portion
from busyapi.auth.credential import Credential
from busyapi.telemetry.metric_defs_api import LIMIT_POLICIES

CREDENTIAL, TENANT, ADDRESS = LIMIT_POLICIES
"""The names of the limits, in headers and metrics."""

Client = tuple[Credential, str] | tuple[()]
"""The credential and address of a client with limits, nothing of another."""
UNLIMITED: Client = ()


class ClientLimits:
    """The limits of all clients. `rate` is for a credential or an address without its own; 0: none.

    `network` is the address of a client, or its network. It matters only without a credential.
    """

    def __init__(
        self,
        portion_pool: PortionPool,
        rate: float = 0.0,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.portion_pool = portion_pool
        self.record_refusal = on_refused
        self.rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._policy = render_policy(ADDRESS, rate, self._burst) if rate else b""
        self._addresses = RateLimiter(rate, self._burst)

    def is_limited(self, credential: Credential) -> bool:
        """Return whether a credential has a limit."""
        return bool(self.rate or credential.rate or credential.tenant_rate)

    def try_charge(self, credential: Credential, network: str) -> bool:
        """Charge one usage; return False, and charge nothing, if `charge` must decide."""
        if credential.id:
            return self.portion_pool.try_charge(self._find_portions(credential), 1)
        return not self._addresses.charge(client_network(network), 1)

    async def charge(
        self, credential: Credential, network: str, cost: int, *, already_charged: int = 0
    ) -> Excess | None:
        """Charge a client that has limits; return the one that the cost exceeds.

        A batch may have paid a part before.
        """
        if cost <= 0:
            return None
        if credential.id:
            portions = self._find_portions(credential)
            return await self.portion_pool.charge(portions, cost, already_charged)
        name = client_network(network)
        seconds = self._addresses.charge(name, cost, already_charged=already_charged)
        return Excess(ADDRESS, seconds) if seconds else None

    def describe(self, credential: Credential, network: str) -> list[Limit]:
        """Return the limits of a client that has any, for the headers of its answers."""
        if credential.id:
            now = monotonic()
            return [portion.describe(now) for portion in self._find_portions(credential)]
        level = self._addresses.read_level(client_network(network))
        return [describe_bucket(ADDRESS, self._policy, level, self.rate, self._burst)]

    def _find_portions(self, credential: Credential) -> list[Portion]:
        portions = []
        if rate := credential.rate or self.rate:
            portions.append(self.portion_pool.find(CREDENTIAL, credential.id, rate))
        if credential.tenant_rate:
            portions.append(
                self.portion_pool.find(TENANT, credential.tenant, credential.tenant_rate)
            )
        return portions
