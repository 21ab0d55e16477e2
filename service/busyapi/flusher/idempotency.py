"""The turn of the Idempotency-Keys: into the archive, out of Redis in time, and back into Redis.

A key is known for at least its time and at most a third longer. This process' monotonic clock says
so. It counts while the partition is flushed, and Redis remembers how far it has come: a restart, a
failover or a clock that is set can make a key live longer, never shorter. The budget bounds how
many that may be.

A new key is on the archive's disk before its usages are. Whoever prepares a server that may lack
keys gives them back before the server gets an epoch, but for those whose usages are lost: a key
must not answer for what is not there.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic

import structlog

from busyapi.archive.idempotency_log import IdempotencyLog, LogPart, read_part
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull, describe_for_log
from busyapi.failpoints import failpoint
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq
from busyapi.sizing.costs import REDIS_KEY_BYTES
from busyapi.stream.keys import IDEMPOTENCY_HASHES
from busyapi.stream.partition import OwnedPartition
from busyapi.telemetry.metrics import FlusherMetrics

log = structlog.get_logger()

GENERATIONS_PER_TTL = IDEMPOTENCY_HASHES - 1
"""Generations that a key's time is cut into."""
AGE_STEPS = 32
"""Redis learns a generation's age in so many steps: each is a write, and what a restart forgets."""
ROTATE_INTERVAL_SECONDS = 1.0
RESTORE_BATCH = 500
"""Keys given back by one script call: about 2 ms."""
MEMORY_SHARE = 2
"""By default keys take at most half of Redis' memory, over all partitions."""
DEFAULT_MAX_KEYS = 2_000_000
"""By default, where Redis' memory has no limit."""


class IdempotencyKeeper:
    """Keeps the keys of one partition. `load` first, and `start` or `restore` at each seed."""

    def __init__(self, ttl_seconds: float, max_keys: int, partitions: int = 1) -> None:
        self.max_keys = max_keys or DEFAULT_MAX_KEYS
        """The most keys that may be known, as of the last `update_max_keys`."""
        self.key_count = 0
        """How many are, -1 when Redis does not tell."""
        self._configured_max_keys = max_keys
        self._partitions = partitions
        self._generation_ms = int(ttl_seconds * 1000 / GENERATIONS_PER_TTL) + 1
        self._log: IdempotencyLog | None = None
        self._age_ms = 0.0
        self._counted_until = monotonic()
        self._archived_until = Seq(0)
        """The files have the new keys up to here."""
        self._complete_until = Seq(0)
        """And those of every server since the last seed."""
        self._next_rotation = 0.0

    async def load(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        """Take the key files of the archive, and see where Redis is in the turn."""
        if self._log is not writer.idempotency_log:
            self._log, self._archived_until = writer.idempotency_log, Seq(0)
        turn = await partition.idempotency.read_rotation()
        files = writer.idempotency_log
        # The larger one is right: what begins a generation writes it down here first, and then
        # there; and a file may be lost.
        generation = max(files.generation, turn.generation, 1)
        if generation != files.generation:
            files.generation, self._age_ms = generation, 0.0
        if generation == turn.generation:
            self._age_ms = max(self._age_ms, turn.age_ms)
        self._counted_until, self._complete_until, self._next_rotation = monotonic(), Seq(0), 0.0

    def update_max_keys(self, memory_max_bytes: int) -> None:
        """Work out the budget, which Redis' memory decides if no setting does; 0 is no limit."""
        share = memory_max_bytes // (MEMORY_SHARE * REDIS_KEY_BYTES * self._partitions)
        self.max_keys = self._configured_max_keys or (
            share if memory_max_bytes else DEFAULT_MAX_KEYS
        )

    def report(self, memory_max_bytes: int, metrics: FlusherMetrics) -> None:
        """Work out the budget again, and say how much of it is used."""
        self.update_max_keys(memory_max_bytes)
        metrics.idempotency_keys_max.set(self.max_keys)
        metrics.idempotency_keys.set(max(0, self.key_count))

    async def archive_new(self, partition: OwnedPartition, through: Seq) -> None:
        """Put the keys of the usages up to a seq on disk: to be done before theirs.

        Raises:
            ArchiveFull, FsyncFailed: as `IdempotencyLog.append`.
        """
        while through > self._complete_until:
            found = await partition.idempotency.read_new(self._archived_until)
            if found.records:
                append = asyncio.to_thread(self._files.append, found.records)
                await partition.await_with_lease(append)
                failpoint("flusher-keys-archived")
                self._next_rotation = 0.0
            self._archived_until = max(self._archived_until, found.last_seq)
            if found.is_complete or found.last_seq >= through:
                self._complete_until = through

    async def rotate(self, partition: OwnedPartition, archived: Seq) -> None:
        """Let the hashes turn if it is time; to be done often.

        Raises:
            FsyncFailed: the process must exit.
        """
        now = monotonic()
        self._age_ms += (now - self._counted_until) * 1000
        self._counted_until = now
        if self._age_ms >= self._generation_ms and (self.key_count > 0 or not self._files.is_empty):
            # On a full volume keys live longer.
            with suppress(ArchiveFull):
                await asyncio.to_thread(self._files.begin_generation, self._files.generation + 1)
                self._age_ms, self._next_rotation = 0.0, 0.0
        if now < self._next_rotation:
            return
        self._next_rotation = now + ROTATE_INTERVAL_SECONDS
        await self._write_rotation(partition, min(archived, self._complete_until))
        try:
            await asyncio.to_thread(
                self._files.drop_generations, self._files.generation - GENERATIONS_PER_TTL
            )
        except OSError as error:
            log.warning("idempotency_log_not_deleted", detail=describe_for_log(error))

    async def restore(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        """Give the server every key whose usages the archive has; to be done again if we die.

        Raises:
            RedisUnavailable, LeaseLost: to be tried again.
        """
        # Its hashes may be behind in the turn: what is over is emptied first.
        await self._write_rotation(partition, Seq(0))
        gaps = writer.stats.gaps
        ends = [each.last for each in gaps]

        def holds(key: IdempotencyRecord) -> bool:
            at = bisect_left(ends, key.last_seq - key.usage_count + 1)
            lost = at < len(gaps) and gaps[at].first <= key.last_seq
            return key.last_seq <= writer.cursor and not lost

        given = 0
        oldest = self._files.generation - GENERATIONS_PER_TTL
        for part in [each for each in self._files.parts if each.generation >= oldest]:
            keys = self._read_part(part)
            while chunk := await asyncio.to_thread(lambda: list(islice(keys, RESTORE_BATCH))):  # noqa: B023 - awaited in its turn
                held = [each for each in chunk if holds(each)]
                if held:
                    await partition.idempotency.restore(part.generation, held)
                    await partition.renew_lease_if_due()
                given += len(held)
        if given:
            log.info("idempotency_keys_restored", keys=given)

    def _read_part(self, part: LogPart) -> Iterator[IdempotencyRecord]:
        damaged = 0
        try:
            for each in read_part(part):
                if each:
                    yield each
                else:
                    damaged += 1
        except OSError as error:
            log.error(
                "idempotency_log_damaged", file=part.path.name, detail=describe_for_log(error)
            )
        if damaged:
            detail = f"lines that cannot be read: {damaged}"
            log.error("idempotency_log_damaged", file=part.path.name, detail=detail)

    async def _write_rotation(self, partition: OwnedPartition, archived: Seq) -> None:
        step = self._generation_ms // AGE_STEPS or 1
        age = int(self._age_ms) // step * step
        generation = self._files.generation
        self.key_count = await partition.idempotency.rotate(
            generation, age, self.max_keys, archived
        )

    @property
    def _files(self) -> IdempotencyLog:
        assert self._log  # noqa: S101 - open() made it
        return self._log
