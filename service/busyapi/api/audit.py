"""What an API process records in the audit trail: reads, and requests that it refused.

A read is recorded before it is answered, or the answer is 503. With BUSYAPI_AUDIT=background it
does not wait. A refusal never waits. Nothing here delays or refuses a write.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sanic import Request

from busyapi.api.audit_sender import EntrySender
from busyapi.api.rate_limit import client_network
from busyapi.api.refusal_sampler import INTERVAL_SECONDS, RefusalSampler
from busyapi.api.usage_query import UsageQuery
from busyapi.audit.record import MAX_TEXT, AuditEntry, format_time
from busyapi.errors import AuditUnavailable
from busyapi.ids import MAX_ID
from busyapi.web.protocol import request_id_of

REFUSED_STATUSES = frozenset({401, 403, 429})
CLOSE_SECONDS = 5.0


class AuditTrail:
    """The audit trail, as one API process writes it."""

    def __init__(
        self,
        senders: Sequence[EntrySender],
        find_address: Callable[[Request], str],
        *,
        required: bool,
    ) -> None:
        self.required = required
        """Whether a read waits until it is recorded."""
        self._senders = senders
        self._find_address = find_address
        self._sampler = RefusalSampler()
        self._sampling: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start to record refusals."""
        self._sampling = asyncio.get_running_loop().create_task(self._sample())

    async def close(self) -> None:
        """Record what is pending."""
        if self._sampling:
            self._sampling.cancel()
        self._flush_refusals()
        await asyncio.gather(*(sender.close(CLOSE_SECONDS) for sender in self._senders))

    def make_entry(self, request: Request, action: str, resource: str, name: str) -> AuditEntry:
        """Return the entry of a request whose status is not known yet."""
        return AuditEntry(
            time=format_time(time.time()),
            action=action,
            resource=resource[:MAX_TEXT],
            name=name[:MAX_TEXT],
            address=self._find_address(request)[:MAX_TEXT],
            request_id=request_id_of(request),
        )

    async def record_read(self, partition: int, entry: AuditEntry) -> None:
        """Record a read before it is answered, unless reads do not wait.

        Raises:
            AuditUnavailable: it may not be recorded, and must not be answered.
        """
        if self.required:
            await self._senders[partition].send(entry)
        else:
            self._senders[partition].send_later(entry)

    async def record_query(self, request: Request, name: str, query: UsageQuery) -> None:
        """Record a list before it is answered, in the trail of partition 0.

        It waits in any case: only the flusher can record a digest instead of the patient.

        Raises:
            AuditUnavailable: it is not recorded, and reads wait for their record.
        """
        entry = replace(self.make_entry(request, "read", query.describe(), name), status=200)
        try:
            await self._senders[0].send_query(entry, query.patient)
        except AuditUnavailable:
            if self.required:
                raise
            self._senders[0].count_dropped(1)

    def record_refusal(self, request: Request, name: str, status: int) -> None:
        """Record that a request was refused."""
        usage = _find_usage_id(request)
        resource = "usages" if usage is None else f"usage/{usage}"
        entry = replace(self.make_entry(request, "refused", resource, name), status=status)
        source = (client_network(entry.address), name, status, request.method, usage is None)
        self._sampler.add(source, entry, usage)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            self._flush_refusals()

    def _flush_refusals(self) -> None:
        entries, dropped = self._sampler.take()
        sender = self._senders[0]
        sender.count_dropped(dropped)
        for entry in entries:
            sender.send_later(entry)


class ReadAudit:
    """The record of one lookup, written by the flusher that looks up or by `record`."""

    def __init__(
        self, trail: AuditTrail | None, request: Request, name: str, usage: int, partition: int
    ) -> None:
        self.request = request
        self._trail, self._partition = trail, partition
        self._entry = trail.make_entry(request, "read", f"usage/{usage}", name) if trail else None
        self.recorded_status: int | None = None
        """The status with which the last flusher that was asked has recorded the read."""

    def find_required(self) -> AuditEntry | None:
        """Return the entry for the flusher to record, in the request that looks up the usage.

        None if there is nothing to record, or if reads do not wait for their record.
        """
        return self._entry if self._trail and self._trail.required else None

    async def record(self, status: int) -> None:
        """Record how the lookup is answered, unless the flusher has recorded this status.

        Raises:
            AuditUnavailable: it must not be answered.
        """
        if self._trail and self._entry and status != self.recorded_status:
            await self._trail.record_read(self._partition, replace(self._entry, status=status))


def _find_usage_id(request: Request) -> int | None:
    """Return the id that a request asked for; None without a possible one."""
    usage = request.match_info.get("usage", 0) if request.route else 0
    return usage if 1 <= usage <= MAX_ID else None
