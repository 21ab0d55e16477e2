"""The audit trail of a flusher: entries of many requests are put on disk together.

    record ──> pending ──one append for all of them──> on disk ──> their requests are answered

While one append waits for the disk, the next entries gather. If an append fails, the requests of
its entries are refused, and the trail records later how many there were.
"""

import asyncio
from asyncio import to_thread
from collections.abc import Sequence
from time import monotonic

import structlog

from busyapi.audit.patients import digest_with_key
from busyapi.audit.record import AuditEntry
from busyapi.audit.writer import AuditWriter
from busyapi.errors import ArchiveError, AuditUnavailable, describe_for_log
from busyapi.telemetry.metrics import FlusherMetrics

log = structlog.get_logger()

MAX_PENDING = 20_000
"""Entries that wait for the disk. Above it, further ones are refused."""
RETRY_INTERVAL_SECONDS = 3.0
"""How often a failing disk is tried while no entry arrives."""
MAINTENANCE_SECONDS = 600.0


class AuditKeeper:
    """Writes the trail of one partition, in the order in which entries arrive."""

    def __init__(self, writer: AuditWriter, metrics: FlusherMetrics) -> None:
        self._writer, self._metrics = writer, metrics
        self._pending: list[AuditEntry] = []
        self._written: asyncio.Future[None] | None = None
        """Done when the pending entries are on disk."""
        self._wake = asyncio.Event()
        self._failed = 0
        """Entries that could not be written since the disk began to fail."""
        self._reason = ""
        """Why the last append failed, "" if it did not."""
        self._stopping = False

    async def digest_patient(self, patient: str) -> str:
        """Return the digest of a patient id with the key of this trail, which exists then.

        Raises:
            AuditUnavailable: the key cannot be created or read.
        """
        try:
            return await to_thread(digest_with_key, self._writer.folder, patient)
        except (ArchiveError, OSError):
            raise AuditUnavailable from None

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Put entries on disk.

        Raises:
            AuditUnavailable: they are not recorded.
        """
        if self._stopping or len(self._pending) + len(entries) > MAX_PENDING:
            raise AuditUnavailable
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        self._pending += entries
        self._wake.set()
        # A request that is cancelled must not cancel the others.
        await asyncio.shield(self._written)

    async def run(self) -> None:
        """Write entries until `stop`, then those that are left."""
        next_maintenance = monotonic()
        while not self._stopping or self._pending:
            if monotonic() >= next_maintenance:
                next_maintenance = monotonic() + MAINTENANCE_SECONDS
                await self._delete_expired()
            await self._wait()
            if self._pending:
                await self._write_pending()
            elif self._reason:
                await self._append([])
        await to_thread(self._writer.close)
        self._log_head()

    def stop(self) -> None:
        """Make `run` write what is pending, and return."""
        self._stopping = True
        self._wake.set()

    async def _wait(self) -> None:
        seconds = RETRY_INTERVAL_SECONDS if self._reason else MAINTENANCE_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _write_pending(self) -> None:
        entries, self._pending = self._pending, []
        written, self._written = self._written, None
        error = await self._append(entries)
        if written is None or written.cancelled():
            return
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(AuditUnavailable())
            written.exception()  # every request may have been cancelled

    async def _append(self, entries: list[AuditEntry]) -> Exception | None:
        try:
            if self._reason:
                await to_thread(self._writer.note_resumed, self._failed)
            if entries:
                await to_thread(self._writer.append, entries)
        except Exception as error:  # noqa: BLE001 - whatever failed, these requests are refused
            self._failed += len(entries)
            self._report_failure(error)
            return error
        if self._reason:
            log.info("audit_resumed", failed=self._failed)
        self._failed, self._reason = 0, ""
        self._metrics.audit_failing.set(0)
        self._metrics.audit_records.inc(len(entries))
        self._log_finished()
        return None

    async def _delete_expired(self) -> None:
        try:
            await to_thread(self._writer.delete_expired)
        except Exception as error:  # noqa: BLE001 - it is tried again
            self._report_failure(error)
        self._log_finished()

    def _report_failure(self, error: Exception) -> None:
        self._metrics.audit_failing.set(1)
        reason = describe_for_log(error)
        if reason != self._reason:
            log.error("audit_failed", error=type(error).__name__, detail=reason)
        self._reason = reason

    def _log_finished(self) -> None:
        finished, self._writer.finished = self._writer.finished, []
        for file in finished:
            log.info("audit_head", file=file.name, seq=file.head.seq, hash=file.head.hash)

    def _log_head(self) -> None:
        if head := self._writer.head:
            log.info("audit_head", file="", seq=head.seq, hash=head.hash)
