"""Renews the portions of a process, in the background.

Renewals that need not be quick are collected for a moment, so that many clients share one packet
and one fsync of Redis. While a packet is under way, the next one collects.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from time import monotonic

import structlog

from busyapi.api.rate_portion import BatchWaiter, Portion
from busyapi.errors import RedisUnavailable
from busyapi.stream.rate_buckets import Balance, RateBuckets, Withdrawal

log = structlog.get_logger()

GATHER_SECONDS = 0.05
RETRY_SECONDS = 0.5
MAX_PORTIONS = 1000
"""In one packet, about 200 kB."""
CLOSE_SECONDS = 1.0


class PortionRenewal:
    """Renews the portions of the buckets in one partition."""

    def __init__(
        self, partition: int, buckets: RateBuckets, on_failure: Callable[[], None]
    ) -> None:
        self._partition = partition
        self._buckets = buckets
        self._on_failure = on_failure
        self._queued: dict[Portion, None] = {}
        self._is_queued, self._is_urgent = asyncio.Event(), asyncio.Event()
        self.is_unavailable = False
        """Whether Redis did not answer the last time. Then no request waits for it."""
        self.was_available = False
        """Whether Redis has ever answered."""

    def request(self, portion: Portion, *, is_urgent: bool = False) -> None:
        """Renew a portion soon; at once if a request waits for it."""
        self._queued[portion] = None
        self._is_queued.set()
        if is_urgent:
            self._is_urgent.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self._is_queued.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._is_urgent.wait()
            await self.renew_queued()
            if self.is_unavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def renew_queued(self) -> None:
        """Renew the portions that are queued, up to the limit of a packet."""
        portions = list(islice(self._queued, MAX_PORTIONS))
        for portion in portions:
            del self._queued[portion]
        if not self._queued:
            self._is_queued.clear()
            self._is_urgent.clear()
        renewals: list[tuple[Portion, BatchWaiter | None, Withdrawal]] = []
        for portion in portions:
            renewals.append((portion, None, portion.make_withdrawal()))
            while portion.batches:
                batch = portion.batches.popleft()
                renewals.append((portion, batch, portion.make_batch_withdrawal(batch)))
        try:
            balances = await self._buckets.withdraw([entry[2] for entry in renewals])
        except RedisUnavailable as error:
            self._mark_unavailable(error)
            for portion, waiter, _ in renewals:
                if waiter:
                    portion.batches.append(waiter)
                portion.fail_withdrawal(monotonic())
            return
        self._mark_available()
        for (portion, waiter, withdrawal), balance in zip(renewals, balances, strict=True):
            self._apply(portion, waiter, withdrawal, balance)

    def _apply(
        self,
        portion: Portion,
        waiter: BatchWaiter | None,
        withdrawal: Withdrawal,
        balance: Balance,
    ) -> None:
        if waiter:
            portion.apply_batch(waiter, balance, monotonic())
        elif portion.apply(withdrawal, balance, monotonic()):
            self.request(portion, is_urgent=bool(portion.singles))

    def _mark_unavailable(self, error: RedisUnavailable) -> None:
        self._on_failure()
        if not self.is_unavailable:
            self.is_unavailable = True
            log.warning("rates_local", partition=self._partition, detail=str(error))

    def _mark_available(self) -> None:
        self.was_available = True
        if self.is_unavailable:
            self.is_unavailable = False
            log.info("rates_shared", partition=self._partition)

    async def close(self, portions: list[Portion]) -> None:
        """Pay what is owed and return what is held, if Redis answers; then disconnect."""
        withdrawals = [portion.make_withdrawal() for portion in portions]
        with suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for at in range(0, len(withdrawals), MAX_PORTIONS):
                    await self._buckets.withdraw(withdrawals[at : at + MAX_PORTIONS])
        await self._buckets.close()
