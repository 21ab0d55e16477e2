"""The portions of one process: found by client, renewed, checked, and forgotten when unused."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from time import monotonic
from zlib import crc32

from busyapi.api.rate_limit import MAX_CLIENTS, Excess
from busyapi.api.rate_portion import LOCAL_SHARE, Action, BatchWaiter, Portion
from busyapi.api.rate_renewal import PortionRenewal
from busyapi.stream.rate_buckets import RateBuckets

CHECK_SECONDS = 0.25
"""How often a portion is checked."""
TICK_SECONDS = 0.05
MAX_CHECKS = 1000
"""Checks in one step of the event loop."""
WAIT_SECONDS = 1.0
"""How long a request waits for Redis before this process decides by itself."""


class PortionPool:
    """What this process may allow by itself, for each credential and tenant with a rate."""

    def __init__(
        self, buckets: Sequence[RateBuckets], on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._renewals = [
            PortionRenewal(partition, entry, on_failure) for partition, entry in enumerate(buckets)
        ]
        self._portions: dict[tuple[str, str], Portion] = {}
        self._due: deque[tuple[float, tuple[str, str], Portion]] = deque()
        self._has_due = asyncio.Event()

    @property
    def portion_count(self) -> int:
        """Return how many portions this process has."""
        return len(self._portions)

    @property
    def is_local(self) -> bool:
        """Return whether a partition's Redis is unavailable, so that this process decides."""
        return any(renewal.is_unavailable for renewal in self._renewals)

    def find(self, policy: str, name: str, rate: float) -> Portion:
        """Return the portion of a credential or a tenant."""
        portion = self._portions.get((policy, name))
        if portion is None:
            return self._add(policy, name, rate)
        if portion.configured_rate != rate:
            portion.set_rate(rate)
        return portion

    def try_charge(self, portions: Sequence[Portion], cost: float) -> bool:
        """Charge all portions; return False, and charge nothing, if one does not cover the cost."""
        for portion in portions:
            if not portion.can_take(cost):
                return False
        for portion in portions:
            self._take(portion, cost)
        return True

    async def charge(
        self, portions: Sequence[Portion], cost: float, already_charged: float = 0
    ) -> Excess | None:
        """Charge all portions, for which it may wait for Redis; return what refuses the cost."""
        if self.try_charge(portions, cost):
            return None
        for at, portion in enumerate(portions):
            if seconds := await self._charge_one(portion, cost, already_charged):
                for charged in portions[:at]:
                    charged.give_back(cost)
                return Excess(portion.policy, seconds)
        return None

    async def _charge_one(self, portion: Portion, cost: float, already_charged: float) -> float:
        if portion.can_take(cost):
            self._take(portion, cost)
            return 0.0
        renewal, now = self._find_renewal(portion), monotonic()
        if renewal.is_unavailable:
            renewal.request(portion)
            return portion.charge_locally(cost, already_charged, now)
        if cost == 1 and now < portion.refused_until:
            return portion.refused_until - now
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if cost == 1:
            portion.singles.append(future)
        else:
            portion.batches.append(BatchWaiter(cost, future))
        renewal.request(portion, is_urgent=True)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await future
        except TimeoutError:
            return portion.charge_locally(cost, already_charged, monotonic())

    def _take(self, portion: Portion, cost: float) -> None:
        portion.take(cost)
        if portion.level < portion.low:
            self._find_renewal(portion).request(portion)

    def _find_renewal(self, portion: Portion) -> PortionRenewal:
        return self._choose_renewal(portion.bucket)

    def _choose_renewal(self, bucket: str) -> PortionRenewal:
        # By the digest: the buckets of an installation are spread over its partitions.
        return self._renewals[crc32(bucket.encode()) % len(self._renewals)]

    def _add(self, policy: str, name: str, rate: float) -> Portion:
        digest = sha256(f"{policy}\0{name}".encode(errors="surrogatepass")).hexdigest()[:32]
        now = monotonic()
        renewal = self._choose_renewal(digest)
        # If Redis never answers, as without the right to run TIME, each process has the whole rate.
        share = LOCAL_SHARE if renewal.was_available else 1.0
        portion = self._portions[policy, name] = Portion(policy, digest, rate, now, share)
        self._due.append((now + CHECK_SECONDS, (policy, name), portion))
        self._has_due.set()
        if len(self._portions) > MAX_CLIENTS:
            # What it owes or holds is lost, at most a credit or half a second's usages.
            del self._portions[next(iter(self._portions))]
        return portion

    # --- in the background --------------------------------------------------------------

    async def run(self) -> None:
        """Renew and check portions until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for renewal in self._renewals:
                tasks.create_task(renewal.run())
            tasks.create_task(self._check_periodically())

    async def _check_periodically(self) -> None:
        while True:
            await self._has_due.wait()
            await asyncio.sleep(0 if self.check_due(monotonic()) else TICK_SECONDS)

    def check_due(self, now: float) -> bool:
        """Check portions whose time has come; return whether there are more."""
        for _ in range(MAX_CHECKS):
            if not self._due:
                self._has_due.clear()
                return False
            if self._due[0][0] > now:
                return False
            _, key, portion = self._due.popleft()
            if self._portions.get(key) is portion:  # else it was dropped
                self._check(key, portion, now)
        return True

    def _check(self, key: tuple[str, str], portion: Portion, now: float) -> None:
        action = portion.check(now)
        if action is Action.FORGET:
            del self._portions[key]
            return
        if action is Action.RENEW:
            self._find_renewal(portion).request(portion)
        self._due.append((now + CHECK_SECONDS, key, portion))

    async def close(self) -> None:
        """Return the portions. Call it after `run` has ended."""
        portions: dict[PortionRenewal, list[Portion]] = {entry: [] for entry in self._renewals}
        for portion in self._portions.values():
            portion.stop()
            portions[self._find_renewal(portion)].append(portion)
        for renewal in self._renewals:
            await renewal.close(portions[renewal])
