"""The resources of a flusher while it owns its partition: lease, archive and connection.

A flusher checks its right to a resource before it takes it: `acquire` locks the folder, compares
its identity with the partition's record, and acquires the lease. Only then does it change files.
After a failure it keeps nothing: `close` releases everything.

Lock and lease protect the archive independently. If another flusher of the same archive holds the
lease, or the open segment is no longer the file at its path, the lock is void: `abandon` leaves the
open segment as it is, and the next `acquire` starts from scratch.
"""

from asyncio import to_thread
from collections.abc import Callable

import structlog

from busyapi.archive.unrecovered_folder import UnrecoveredFolder
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import RedisUnavailable
from busyapi.flusher.ownership import PartitionConfig, acquire_lease
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition

log = structlog.get_logger()


class FlusherResources:
    """The lease, archive and connection of one flusher."""

    def __init__(
        self,
        config: PartitionConfig,
        folder: UnrecoveredFolder,
        connect: Callable[[str], OwnedPartition],
    ) -> None:
        self.writer: PartitionWriter | None = None
        self.partition: OwnedPartition | None = None
        self._config = config
        self._unrecovered = folder
        self._connect = connect
        self._recovered_cursor: Seq | None = None

    async def acquire(self) -> tuple[OwnedPartition, PartitionWriter]:
        """Acquire the lease, and recover the archive under it.

        Raises:
            BusyapiError: as `UnrecoveredFolder.read_identity`, `recover` and `acquire_lease`.
        """
        archive = (
            self.writer.identity
            if self.writer
            else await to_thread(self._unrecovered.read_identity)
        )
        if archive is None:  # a new folder has no files that another flusher could write
            archive = (await self._recover()).identity
        if self.partition is None:
            self.partition = self._connect(archive.archive_id)
        partition = self.partition
        try:
            await partition.connect()
            was_owner = await acquire_lease(partition, archive, self._config)
        except RedisUnavailable:
            if self.writer is None:  # lookups in the archive work without Redis
                await self._recover()
            raise
        if self.writer and was_owner:
            return partition, self.writer
        # Without the lease, another flusher may have written the archive in between.
        await self._close_writer(finish=True)
        return partition, await partition.await_with_lease(self._recover())

    async def _recover(self) -> PartitionWriter:
        writer = self.writer = await to_thread(self._unrecovered.recover)
        if writer.cursor != self._recovered_cursor:  # a halted flusher recovers at each retry
            self._recovered_cursor = writer.cursor
            log.info("archive_recovered", cursor=writer.cursor)
        return writer

    async def close(self) -> None:
        """Release archive and lease, in this order: files change only under the lease.

        Raises:
            FsyncFailed: as `PartitionWriter.close`.
        """
        try:
            await self._close_writer(finish=True)
        finally:
            self._unrecovered.unlock()
            await self._release()

    async def abandon(self) -> None:
        """Release an archive that another process has taken, or whose disk has failed."""
        await self._close_writer(finish=False)
        self._unrecovered.unlock()
        await self._release()

    async def _close_writer(self, *, finish: bool) -> None:
        if self.writer:
            writer, self.writer = self.writer, None
            await to_thread(lambda: writer.close(finish=finish))

    async def _release(self) -> None:
        if self.partition:
            partition, self.partition = self.partition, None
            await partition.release()
