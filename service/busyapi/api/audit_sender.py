"""Sends entries of the audit trail to the flusher of a partition, many at a time.

    send        ──┐                                       ┌──> recorded: the read is answered
                  ├──> pending ──one POST at a time──> flusher
    send_later  ──┘                                       └──> failed: the read is refused

While one POST is under way, the next entries gather. Entries that nothing waits for are sent again
until the flusher has them; their number is bounded, and those that were dropped are counted. An
entry that the flusher refuses is dropped too.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import structlog

from busyapi.api.archive_client import ArchiveClient, EntriesRefused
from busyapi.audit.record import AuditEntry, encode_entry
from busyapi.errors import AuditUnavailable, describe_for_log

log = structlog.get_logger()

MAX_PENDING = 10_000
"""Entries that wait to be sent, in each process for each partition."""
MAX_BATCH = 500
RETRY_SECONDS = 1.0


class _Pending(NamedTuple):
    entry: AuditEntry
    recorded: asyncio.Future[None] | None
    """None: nothing waits for it."""


class EntrySender:
    """The entries for one partition's trail."""

    def __init__(
        self,
        archive: ArchiveClient,
        partition: int,
        on_dropped: Callable[[int], object],
        on_delivery: Callable[[str], object],
    ) -> None:
        self._archive, self._partition = archive, partition
        self._on_dropped, self._on_delivery = on_dropped, on_delivery
        self._pending: deque[_Pending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._dropped = 0
        self._closing = False

    async def send_query(self, entry: AuditEntry, patient: str) -> None:
        """Send the entry of a query, in whose resource the flusher puts the patient's digest.

        Raises:
            AuditUnavailable: it may not be recorded.
        """
        members = {"entry": json.loads(encode_entry(entry)), "patient": patient}
        try:
            await self._archive.record_query(self._partition, json.dumps(members).encode())
        except AuditUnavailable:
            self._on_delivery("failed")
            raise
        self._on_delivery("recorded")

    async def send(self, entry: AuditEntry) -> None:
        """Send an entry, and return when it is on the flusher's disk.

        Raises:
            AuditUnavailable: it may not be recorded.
        """
        if len(self._pending) >= MAX_PENDING:
            raise AuditUnavailable
        recorded = asyncio.get_running_loop().create_future()
        self._enqueue(_Pending(entry, recorded))
        await recorded

    def send_later(self, entry: AuditEntry) -> None:
        """Send an entry without waiting; if too many wait, count it as dropped."""
        if len(self._pending) >= MAX_PENDING:
            self.count_dropped(entry.count + entry.dropped)
        else:
            self._enqueue(_Pending(entry, None))

    def count_dropped(self, events: int) -> None:
        """Count events that are not recorded; the next entry has their number."""
        self._dropped += events
        if events:
            self._on_dropped(events)

    async def close(self, seconds: float) -> None:
        """Send what is pending, within this time."""
        self._closing = True
        self._wake.set()
        if self._task:
            await asyncio.wait([self._task], timeout=seconds)
            self._task.cancel()
            await asyncio.wait([self._task])

    def _enqueue(self, pending: _Pending) -> None:
        self._pending.append(pending)
        if pending.recorded:
            self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._pending:
                batch = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
                if not await self._deliver(batch):
                    await self._pause()
        finally:
            # A task that is cancelled leaves entries.
            abandoned = list(self._pending)
            self._pending.clear()
            self._fail(abandoned)

    async def _deliver(self, batch: list[_Pending]) -> bool:
        """Send a batch; return False if it could not be sent. Its entries are then kept, or failed.

        If the flusher refuses a batch, its entries are sent one by one: a single invalid one must
        neither hold up the others nor be sent again for ever.
        """
        try:
            await self._post(batch)
        except EntriesRefused as error:
            if len(batch) == 1:
                self._refuse(batch[0], error)
                return True
            return await self._deliver_each(deque(batch))
        except AuditUnavailable:
            self._on_delivery("failed")
            self._fail(batch)
            return False
        except Exception as error:  # noqa: BLE001 - reads must not wait for a task that has ended
            log.error(
                "audit_delivery_failed",
                partition=self._partition,
                error=type(error).__name__,
                detail=describe_for_log(error),
            )
            self._on_delivery("failed")
            self._fail(batch)
            return False
        except BaseException:
            self._fail(batch)
            raise
        return True

    async def _deliver_each(self, rest: deque[_Pending]) -> bool:
        try:
            while rest:
                if not await self._deliver([rest.popleft()]):
                    return False
        finally:
            self._fail(list(rest))
        return True

    async def _post(self, batch: list[_Pending]) -> None:
        """Send a batch in one request, with the number of dropped events, and answer its reads."""
        dropped, self._dropped = self._dropped, 0
        try:
            entries = [pending.entry for pending in batch]
            entries[0] = replace(entries[0], dropped=entries[0].dropped + dropped)
            await self._archive.record(self._partition, b"\n".join(map(encode_entry, entries)))
        except BaseException:
            self._dropped += dropped
            raise
        self._on_delivery("recorded")
        for pending in batch:
            if pending.recorded and not pending.recorded.done():
                pending.recorded.set_result(None)

    def _refuse(self, pending: _Pending, error: EntriesRefused) -> None:
        """Drop an entry that the flusher refuses, and refuse its read."""
        entry = pending.entry
        log.error(
            "audit_entry_refused",
            partition=self._partition,
            action=entry.action,
            request_id=entry.request_id,
            detail=str(error),
        )
        self.count_dropped(entry.count + entry.dropped)
        if pending.recorded and not pending.recorded.done():
            pending.recorded.set_exception(AuditUnavailable())

    def _fail(self, batch: list[_Pending]) -> None:
        """Refuse the reads of a batch, and keep its other entries for the next attempt."""
        for pending in reversed(batch):
            if pending.recorded is None and not self._closing:
                self._pending.appendleft(pending)
            elif pending.recorded is None:
                self.count_dropped(pending.entry.count + pending.entry.dropped)
            elif not pending.recorded.done():
                pending.recorded.set_exception(AuditUnavailable())

    async def _pause(self) -> None:
        """Wait before the next attempt, unless a read waits."""
        self._wake.clear()
        if any(pending.recorded for pending in self._pending) or self._closing:
            return
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
