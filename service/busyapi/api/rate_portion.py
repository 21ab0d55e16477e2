"""The part of a credential's or a tenant's rate that one process may allow by itself.

    bucket in Redis, for all processes ──withdrawals──> portion of a process ──> usages
           fills with the rate            in the background

A client whose bucket is at least half full has a small *credit*: its first usages are allowed at
once and paid for later. So a device that sends a usage each minute waits for no round trip. A
client that sends more gets a portion for the next half second, which is renewed before it is used
up. A request that the portion does not cover waits for one withdrawal, which all such requests
share. If that gives nothing, the client is refused until the bucket can have a usage again.

    usages allowed in any time t  <=  burst + rate * t + processes * credit

Why: what a portion gives was taken out of the bucket before. What the credit gives is charged in
any case, also to an empty bucket. After that the bucket is less than half full, so there is no
credit until the debt is paid: it does not add up. A process forgets a portion only when its bucket
must be full again.

An unused portion is returned. That of a killed process is lost, which allows less, not more.
"""

from asyncio import Future
from collections import deque
from enum import Enum, auto
from math import ceil, floor
from typing import NamedTuple

from busyapi.api.rate_headers import Limit, describe_bucket, render_policy
from busyapi.api.token_bucket import charge_bucket, refill
from busyapi.stream.rate_buckets import Balance, Withdrawal

BURST_SECONDS = 2.0
"""After a pause a client may send a burst of as many usages as its rate allows in this time."""
CREDIT_SHARE = 0.02
"""The credit as a part of the burst. At least one usage: else every first one would wait."""
HORIZON_SECONDS = 0.5
"""A portion is for this time, at the rate at which the client has sent to this process."""
MIN_REFUSAL_SECONDS = 0.05
"""After a refusal, other requests of the client are refused without a withdrawal for this time."""
LOCAL_SHARE = 0.1
"""The least part of a rate that a process allows while Redis is unavailable."""
IDLE_CHECKS = 2
"""A portion that was not used between so many checks is returned."""
MIN_RATE, MAX_RATE = 1e-6, 2.0**40


class Action(Enum):
    """What a check of a portion asks for."""

    KEEP = auto()
    RENEW = auto()
    FORGET = auto()


class BatchWaiter(NamedTuple):
    """A batch that waits for a withdrawal."""

    cost: float
    future: "Future[float]"


class Portion:
    """A process's portion of one bucket. Futures get 0, or the seconds to wait after a refusal."""

    def __init__(
        self, policy: str, bucket: str, rate: float, now: float, local_share: float = LOCAL_SHARE
    ) -> None:
        self.policy = policy
        self.bucket = bucket
        self.level = 0.0
        """Usages that it may still allow; negative: those allowed on credit."""
        self.low = 0.0
        """Below this level it must be renewed."""
        self.singles: deque[Future[float]] = deque()
        self.batches: deque[BatchWaiter] = deque()
        self.refused_until = 0.0
        self._used = 0.0
        self._use_rate = 0.0
        self._idle_checks = 0
        self._checked_at = self._balance_at = now
        self._refilled_at = now - BURST_SECONDS  # without Redis, too, a client has a burst
        self.set_rate(rate)
        self._balance = self.burst
        self._credit = self._max_credit
        self._local_rate = local_share * self.rate
        self._set_low()

    def set_rate(self, rate: float) -> None:
        """Use another rate from now on."""
        self.configured_rate = rate
        self.rate = min(max(rate, MIN_RATE), MAX_RATE)
        self.burst = max(1.0, self.rate * BURST_SECONDS)
        self._rendered_policy = render_policy(self.policy, self.rate, self.burst)
        self._max_credit = max(1.0, self.burst * CREDIT_SHARE)

    def can_take(self, cost: float) -> bool:
        """Return whether the portion, or its credit, covers a cost."""
        return self.level - cost >= -self._credit

    def take(self, cost: float) -> None:
        """Use a part of the portion."""
        self.level -= cost
        self._used += cost

    def give_back(self, cost: float) -> None:
        """Return what was taken for a request that is refused for another reason."""
        self.level += cost

    def describe(self, now: float) -> Limit:
        """Return the limit. What other processes have used lately is not in it yet."""
        level = self._estimate_balance(now) + self.level
        return describe_bucket(self.policy, self._rendered_policy, level, self.rate, self.burst)

    # --- withdrawals --------------------------------------------------------------------

    def make_withdrawal(self) -> Withdrawal:
        """Return what to take out of the bucket for the portion and the waiting requests."""
        owed = max(0.0, -self.level)
        requested = self._target() + len(self.singles) - max(0.0, self.level)
        if requested < 0:
            requested = float(-floor(-requested))
            self.level += requested  # no request may use what is being returned
        return Withdrawal(self.bucket, self.rate, self.burst, owed, float(ceil(requested)))

    def make_batch_withdrawal(self, waiter: BatchWaiter) -> Withdrawal:
        """Return what to take out of the bucket for one batch."""
        return Withdrawal(self.bucket, self.rate, self.burst, batch=waiter.cost)

    def apply(self, withdrawal: Withdrawal, balance: Balance, now: float) -> bool:
        """Add what was taken, and answer waiting requests; return whether to renew again."""
        self.level += withdrawal.owed + max(0.0, balance.granted)
        self._local_rate = min(self.rate, max(self._use_rate, LOCAL_SHARE * self.rate))
        self._refilled_at = now
        self._record_balance(balance.level, now)
        self._serve_singles()
        if self.singles and balance.level < 1:
            wait = max(MIN_REFUSAL_SECONDS, (1 - balance.level) / self.rate)
            self.refused_until = now + wait
            self._refuse_singles(wait)
        return bool(self.singles) or self.level < min(self.low, 0)

    def apply_batch(self, waiter: BatchWaiter, balance: Balance, now: float) -> None:
        """Answer a waiting batch."""
        self._record_balance(balance.level, now)
        if waiter.future.done():  # its client has left
            self.level += waiter.cost * balance.is_batch_granted
        elif balance.is_batch_granted:
            waiter.future.set_result(0.0)
        else:
            missing = min(waiter.cost, self.burst / 2) - balance.level
            waiter.future.set_result(missing / self.rate)

    def _record_balance(self, level: float, now: float) -> None:
        self._balance, self._balance_at = level, now
        self._credit = self._max_credit if level >= self.burst / 2 else 0.0
        self._set_low()

    def _serve_singles(self) -> None:
        while self.singles and self.can_take(1):
            future = self.singles.popleft()
            if not future.done():
                self.take(1)
                future.set_result(0.0)

    def _refuse_singles(self, seconds: float) -> None:
        while self.singles:
            future = self.singles.popleft()
            if not future.done():
                future.set_result(seconds)

    # --- without Redis ------------------------------------------------------------------

    def charge_locally(self, cost: float, already_charged: float, now: float) -> float:
        """Charge a cost without Redis; return the seconds to wait if it is too high.

        The process continues with its own share: the rate at which it allowed usages of this
        client before, at least a tenth of the rate.
        """
        rate = self._local_rate
        burst = max(1.0, rate * BURST_SECONDS)
        level = refill(self.level, now - self._refilled_at, rate, burst)
        self._refilled_at = now
        self.level, seconds = charge_bucket(level, cost, rate, burst, already_charged)
        if not seconds:
            self._used += cost
        return seconds

    def fail_withdrawal(self, now: float) -> None:
        """Answer waiting requests without Redis."""
        while self.singles:
            future = self.singles.popleft()
            if not future.done():
                future.set_result(self.charge_locally(1, 0, now))
        while self.batches:
            cost, future = self.batches.popleft()
            if not future.done():
                future.set_result(self.charge_locally(cost, 0, now))

    # --- checks -------------------------------------------------------------------------

    def check(self, now: float) -> Action:
        """Measure the use since the last check, and return what to do."""
        if now > self._checked_at:
            used_rate = self._used / (now - self._checked_at)
            self._use_rate = (self._use_rate + used_rate) / 2
        self._idle_checks = 0 if self._used else self._idle_checks + 1
        self._used, self._checked_at = 0.0, now
        self._set_low()
        if self.level < 0 or self.level >= self._target() + 1:
            return Action.RENEW
        if (
            self._idle_checks >= IDLE_CHECKS
            and not self.singles
            and not self.batches
            and self._estimate_balance(now) >= self.burst
        ):
            return Action.FORGET
        return Action.KEEP

    def stop(self) -> None:
        """Hold nothing any more: the next withdrawal returns all."""
        self._idle_checks = IDLE_CHECKS

    def _estimate_balance(self, now: float) -> float:
        return refill(self._balance, max(0.0, now - self._balance_at), self.rate, self.burst)

    def _target(self) -> float:
        """Return how many usages the portion should have."""
        if self._idle_checks >= IDLE_CHECKS:
            return 0.0
        # Twice what was used since the last check, so that a burst gets it in few withdrawals.
        expected = max(self._use_rate * HORIZON_SECONDS, 2 * self._used) - self._credit
        return float(max(0, floor(min(expected, self.rate * HORIZON_SECONDS))))

    def _set_low(self) -> None:
        self.low = self._target() / 2 or -self._credit / 2
