"""The buckets of rates in Redis: what all processes together may still allow.

A bucket belongs to a credential or a tenant, and is a key of one partition. It fills with the rate,
up to the burst. A process takes portions out of it: `api/rate_portion.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import RedisConnection, ServerError, make_evalsha
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.scripts import TAKE_RATE

REPLY_TIMEOUT_SECONDS = 1.0
"""Requests may wait for a reply."""


class Withdrawal(NamedTuple):
    """What a process takes out of one bucket."""

    bucket: str
    """A digest: it must name neither a token nor a patient."""
    rate: float
    burst: float
    owed: float = 0.0
    """Usages that the process has allowed before."""
    requested: float = 0.0
    """Usages that it wants to allow later, as many as there are; negative: returned."""
    batch: float = 0.0
    """The usages of a batch, all or none."""


class Balance(NamedTuple):
    """The reply to a withdrawal."""

    granted: float
    """How many of `requested` the process got."""
    is_batch_granted: bool
    level: float
    """What the bucket has now; negative: it is in debt."""


class RateBuckets:
    """The buckets in one partition. Calls must not overlap."""

    def __init__(self, endpoint: Endpoint, partition: int) -> None:
        self._endpoint = endpoint
        self._key_names = endpoint.key_names(partition)
        self._connection: RedisConnection | None = None

    async def withdraw(self, withdrawals: Sequence[Withdrawal]) -> list[Balance]:
        """Take out of several buckets in one packet.

        Raises:
            RedisUnavailable: there is no reply, or Redis refuses. It may have executed each.
        """
        connection = self._connection
        if connection is None or connection.is_closed:
            partition = self._key_names.partition
            connection = self._connection = await self._endpoint.connect(partition)
        commands = [
            make_evalsha(TAKE_RATE, [self._key_names.rate_bucket(bucket)], *map(repr, numbers))
            for bucket, *numbers in withdrawals
        ]
        replies = await connection.pipeline(*commands, timeout_seconds=REPLY_TIMEOUT_SECONDS)
        for reply in replies:
            if isinstance(reply, ServerError):
                # A former primary, a missing right, or the scripts were flushed.
                await connection.close()
                raise RedisUnavailable(f"Redis refuses rates: {reply}")
        return [
            Balance(float(granted), bool(batch), float(level)) for granted, batch, level in replies
        ]

    async def close(self) -> None:
        """Close the connection."""
        if self._connection:
            await self._connection.close()
