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

from busyapi.archive.keys import KeyLog, Part, read
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull, told
from busyapi.failpoints import failpoint
from busyapi.ids import Seq
from busyapi.known import KnownKey
from busyapi.metrics import FlusherMetrics
from busyapi.sizing import REDIS_KEY_BYTES
from busyapi.stream.keys import KEY_HASHES
from busyapi.stream.partition import Partition

log = structlog.get_logger()

SPANS = KEY_HASHES - 1
"""Generations that a key's time is cut into."""
STEPS = 32
"""Redis learns a generation's age in so many steps: each is a write, and what a restart forgets."""
KEEP_SECONDS = 1.0
GIVEN_AT_ONCE = 500
"""Keys given back by one script call: about 2 ms."""
MEMORY_SHARE = 2
"""By default keys take at most half of Redis' memory, over all partitions."""
MOST_KEYS = 2_000_000
"""By default, where Redis' memory has no limit."""


class KeyKeeper:
    """Keeps the keys of one partition. `open` first, and `start` or `restore` at each seed."""

    def __init__(self, seconds: float, most: int, partitions: int = 1) -> None:
        self.budget = most or MOST_KEYS
        """The most keys that may be known, as of the last `limit`."""
        self.known = 0
        """How many are, -1 when Redis does not tell."""
        self._most = most
        self._partitions = partitions
        self._span_ms = int(seconds * 1000 / SPANS) + 1
        self._log: KeyLog | None = None
        self._age_ms = 0.0
        self._since = monotonic()
        self._after = Seq(0)
        """The files have the new keys up to here."""
        self._through = Seq(0)
        """And those of every server since the last seed."""
        self._next = 0.0

    async def open(self, partition: Partition, writer: PartitionWriter) -> None:
        """Take the key files of the archive, and see where Redis is in the turn."""
        if self._log is not writer.keys:
            self._log, self._after = writer.keys, Seq(0)
        turn = await partition.known.turn()
        files = writer.keys
        # The larger one is right: what begins a generation writes it down here first, and then
        # there; and a file may be lost.
        generation = max(files.generation, turn.generation, 1)
        if generation != files.generation:
            files.generation, self._age_ms = generation, 0.0
        if generation == turn.generation:
            self._age_ms = max(self._age_ms, turn.age_ms)
        self._since, self._through, self._next = monotonic(), Seq(0), 0.0

    def limit(self, memory_max_bytes: int) -> None:
        """Work out the budget, which Redis' memory decides if no setting does; 0 is no limit."""
        share = memory_max_bytes // (MEMORY_SHARE * REDIS_KEY_BYTES * self._partitions)
        self.budget = self._most or (share if memory_max_bytes else MOST_KEYS)

    def look(self, memory_max_bytes: int, metrics: FlusherMetrics) -> None:
        """Work out the budget again, and say how much of it is used."""
        self.limit(memory_max_bytes)
        metrics.keys_max.set(self.budget)
        metrics.keys.set(max(0, self.known))

    async def archive(self, partition: Partition, through: Seq) -> None:
        """Put the keys of the usages up to a seq on disk: to be done before theirs.

        Raises:
            ArchiveFull, SyncFailed: as `KeyLog.append`.
        """
        while through > self._through:
            found = await partition.known.read(self._after)
            if found.keys:
                append = asyncio.to_thread(self._files.append, found.keys)
                await partition.while_renewing(append)
                failpoint("flusher-keys-archived")
                self._next = 0.0
            self._after = max(self._after, found.last)
            if found.all or found.last >= through:
                self._through = through

    async def keep(self, partition: Partition, archived: Seq) -> None:
        """Let the hashes turn if it is time; to be done often.

        Raises:
            SyncFailed: the process must exit.
        """
        now = monotonic()
        self._age_ms += (now - self._since) * 1000
        self._since = now
        if self._age_ms >= self._span_ms and (self.known > 0 or not self._files.empty):
            # On a full volume keys live longer.
            with suppress(ArchiveFull):
                await asyncio.to_thread(self._files.begin, self._files.generation + 1)
                self._age_ms, self._next = 0.0, 0.0
        if now < self._next:
            return
        self._next = now + KEEP_SECONDS
        await self._tell(partition, min(archived, self._through))
        try:
            await asyncio.to_thread(self._files.drop, self._files.generation - SPANS)
        except OSError as error:
            log.warning("keys_not_deleted", detail=told(error))

    async def restore(self, partition: Partition, writer: PartitionWriter) -> None:
        """Give the server every key whose usages the archive has; to be done again if we die.

        Raises:
            RedisAway, LeaseLost: to be tried again.
        """
        # Its hashes may be behind in the turn: what is over is emptied first.
        await self._tell(partition, Seq(0))
        gaps = writer.gaps
        ends = [each.last for each in gaps]

        def holds(key: KnownKey) -> bool:
            at = bisect_left(ends, key.last - key.usages + 1)
            lost = at < len(gaps) and gaps[at].first <= key.last
            return key.last <= writer.cursor and not lost

        given = 0
        oldest = self._files.generation - SPANS
        for part in [each for each in self._files.parts if each.generation >= oldest]:
            keys = self._read(part)
            while chunk := await asyncio.to_thread(lambda: list(islice(keys, GIVEN_AT_ONCE))):  # noqa: B023 - awaited in its turn
                held = [each for each in chunk if holds(each)]
                if held:
                    await partition.known.give(part.generation, held)
                    await partition.renew_if_due()
                given += len(held)
        if given:
            log.info("keys_given_back", keys=given)

    def _read(self, part: Part) -> Iterator[KnownKey]:
        damaged = 0
        try:
            for each in read(part):
                if each:
                    yield each
                else:
                    damaged += 1
        except OSError as error:
            log.error("keys_damaged", file=part.path.name, detail=told(error))
        if damaged:
            detail = f"lines that cannot be read: {damaged}"
            log.error("keys_damaged", file=part.path.name, detail=detail)

    async def _tell(self, partition: Partition, archived: Seq) -> None:
        step = self._span_ms // STEPS or 1
        age = int(self._age_ms) // step * step
        generation = self._files.generation
        self.known = await partition.known.keep(generation, age, self.budget, archived)

    @property
    def _files(self) -> KeyLog:
        assert self._log  # noqa: S101 - open() made it
        return self._log
