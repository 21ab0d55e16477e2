"""The rotation of Idempotency-Keys: archive new keys, expire old ones, restore keys to Redis.

A key is known for at least its TTL and at most a third longer, by this process's monotonic clock.
The clock counts while the partition is flushed, and Redis stores its progress: a restart, a
failover or a clock step can make a key live longer, never shorter. The budget bounds their number.

A new key is on the archive's disk before its usages are. A flusher that seeds a server which may
lack keys restores them before it mints an epoch. It leaves out keys whose usages are lost: a key
must not answer for usages that do not exist.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic

import structlog

from busyapi.archive.idempotency_log import IdempotencyLog, LogPart, find_last_seq, read_part
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
"""Generations per TTL of a key."""
AGE_STEPS = 32
"""The age of a generation is written to Redis in this many steps; a restart forgets up to one."""
ROTATE_INTERVAL_SECONDS = 1.0
RESTORE_BATCH = 500
"""Keys restored by one script call: about 2 ms."""
MEMORY_SHARE = 2
"""By default, the keys of all partitions take at most half of Redis's memory."""
DEFAULT_MAX_KEYS = 2_000_000
"""The default budget if Redis's memory has no limit."""


class IdempotencyKeeper:
    """The keys of one partition.

    Whenever the flusher seeds the partition, it calls `load`, and then `restore` if Redis may lack
    keys.
    """

    def __init__(self, ttl_seconds: float, max_keys: int) -> None:
        self.max_keys = max_keys or DEFAULT_MAX_KEYS
        """The maximum number of known keys, as of the last `update_max_keys`."""
        self.key_count = 0
        """The number of known keys, -1 if the ACL of Redis does not allow to count them."""
        self._configured_max_keys = max_keys
        self._base = 1
        self._generation_ms = int(ttl_seconds * 1000 / GENERATIONS_PER_TTL) + 1
        self._log: IdempotencyLog | None = None
        self._age_ms = 0.0
        self._counted_until = monotonic()
        self._archived_seq = Seq(0)
        """The files have the new keys of this server up to this seq."""
        self._complete_seq = Seq(0)
        """The files have all keys up to this seq, as verified since the last seed."""
        self._next_rotation = 0.0

    async def load(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        """Load the archive's key files, and the state of the rotation from Redis."""
        # The server may be another one, with other keys at the seqs that were archived already. A
        # key that is in the files twice is harmless.
        self._log, self._archived_seq = writer.idempotency_log, Seq(0)
        # Partitions that were added get no posts with a key.
        self._base = writer.identity.strides.base
        rotation = await partition.idempotency.read_rotation()
        files = writer.idempotency_log
        # The larger generation is right: a new one is written to the files first, then to Redis,
        # and files may be lost.
        generation = max(files.generation, rotation.generation, 1)
        if generation != files.generation:
            files.generation, self._age_ms = generation, 0.0
        if generation == rotation.generation:
            self._age_ms = max(self._age_ms, rotation.age_ms)
        self._counted_until, self._complete_seq, self._next_rotation = monotonic(), Seq(0), 0.0

    def update_max_keys(self, memory_max_bytes: int) -> None:
        """Compute the budget, from Redis's memory (0 for no limit) unless a setting gives it."""
        share = memory_max_bytes // (MEMORY_SHARE * REDIS_KEY_BYTES * self._base)
        self.max_keys = self._configured_max_keys or (
            share if memory_max_bytes else DEFAULT_MAX_KEYS
        )

    def report(self, memory_max_bytes: int, metrics: FlusherMetrics) -> None:
        """Compute the budget again, and report how much of it is used."""
        self.update_max_keys(memory_max_bytes)
        metrics.idempotency_keys_max.set(self.max_keys)
        metrics.idempotency_keys.set(max(0, self.key_count))

    async def archive_new(self, partition: OwnedPartition, through: Seq) -> None:
        """Write the keys of the usages up to a seq to disk, before the usages themselves.

        Raises:
            ArchiveFull, FsyncFailed: as `IdempotencyLog.append`.
        """
        while through > self._complete_seq:
            chunk = await partition.idempotency.read_new(self._archived_seq)
            if chunk.records:
                append = asyncio.to_thread(self._files.append, chunk.records)
                await partition.await_with_lease(append)
                failpoint("flusher-keys-archived")
                self._next_rotation = 0.0
            self._archived_seq = max(self._archived_seq, chunk.last_seq)
            if chunk.is_complete or chunk.last_seq >= through:
                self._complete_seq = through

    async def rotate(self, partition: OwnedPartition, archived: Seq) -> None:
        """Rotate the hashes if a generation has ended. Call this often.

        Raises:
            FsyncFailed: the process must exit.
        """
        now = monotonic()
        self._age_ms += (now - self._counted_until) * 1000
        self._counted_until = now
        if self._age_ms >= self._generation_ms and (self.key_count > 0 or not self._files.is_empty):
            # On a full volume keys live longer: the next call tries again.
            with suppress(ArchiveFull):
                await asyncio.to_thread(self._files.begin_generation, self._files.generation + 1)
                self._age_ms, self._next_rotation = 0.0, 0.0
        if now < self._next_rotation:
            return
        self._next_rotation = now + ROTATE_INTERVAL_SECONDS
        await self._write_rotation(partition, min(archived, self._complete_seq))
        try:
            await asyncio.to_thread(
                self._files.drop_generations, self._files.generation - GENERATIONS_PER_TTL
            )
        except OSError as error:
            log.warning("idempotency_log_not_deleted", detail=describe_for_log(error))

    async def restore(self, partition: OwnedPartition, writer: PartitionWriter) -> None:
        """Restore every key whose usages the archive has; after a crash the next seed repeats it.

        Raises:
            RedisUnavailable, LeaseLost: try again.
        """
        # The server's hashes may be generations behind: expired ones are emptied first.
        await self._write_rotation(partition, Seq(0))
        gaps = writer.stats.gaps
        ends = [gap.last for gap in gaps]

        def has_usages(key: IdempotencyRecord) -> bool:
            index = bisect_left(ends, key.last_seq - key.usage_count + 1)
            is_lost = index < len(gaps) and gaps[index].first <= key.last_seq
            return key.last_seq <= writer.cursor and not is_lost

        count = 0
        for part in self._known_parts:
            keys = self._read_part(part)
            while chunk := await asyncio.to_thread(lambda: list(islice(keys, RESTORE_BATCH))):  # noqa: B023 - awaited at once
                records = [key for key in chunk if has_usages(key)]
                if records:
                    await partition.idempotency.restore(part.generation, records)
                    await partition.renew_lease_if_due()
                count += len(records)
        if count:
            log.info("idempotency_keys_restored", keys=count)

    async def find_last_seq(self) -> Seq:
        """Return the largest seq of a key that `restore` would restore if its usages existed."""
        last_seq = Seq(0)
        for part in self._known_parts:
            try:
                last_seq = await asyncio.to_thread(find_last_seq, part, last_seq)
            except OSError as error:
                detail = describe_for_log(error)
                log.error("idempotency_log_damaged", file=part.path.name, detail=detail)
        return last_seq

    @property
    def _known_parts(self) -> list[LogPart]:
        oldest = self._files.generation - GENERATIONS_PER_TTL
        return [part for part in self._files.parts if part.generation >= oldest]

    def _read_part(self, part: LogPart) -> Iterator[IdempotencyRecord]:
        damaged_lines = 0
        try:
            for record in read_part(part):
                if record:
                    yield record
                else:
                    damaged_lines += 1
        except OSError as error:
            log.error(
                "idempotency_log_damaged", file=part.path.name, detail=describe_for_log(error)
            )
        if damaged_lines:
            detail = f"lines that cannot be read: {damaged_lines}"
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
        assert self._log  # noqa: S101 - `load` set it
        return self._log
