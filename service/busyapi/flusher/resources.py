"""What a flusher has while it owns its partition: the lease, the archive, a connection.

Nothing is taken before the right to it is known: `acquire` locks the folder, compares its identity
with the partition's record, and takes the lease. Only then are files changed. Nothing is kept in a
failed state: `close` gives everything back.

Lock and lease are two guards, and each holds alone. Where another flusher of the same archive has
the lease, or the open segment is no longer the file at its path, the lock is void: `abandon` leaves
the open segment as it is, and the next `acquire` is that of a newcomer.
"""

from asyncio import to_thread
from collections.abc import Callable

import structlog

from busyapi.archive.volume import ArchiveVolume
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import RedisUnavailable
from busyapi.flusher.ownership import PartitionConfig, acquire_lease
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition

log = structlog.get_logger()


class FlusherResources:
    """One flusher's hold on its partition."""

    def __init__(
        self,
        config: PartitionConfig,
        volume: ArchiveVolume,
        connect: Callable[[str], OwnedPartition],
    ) -> None:
        self.writer: PartitionWriter | None = None
        self.partition: OwnedPartition | None = None
        self._config = config
        self._volume = volume
        self._connect = connect
        self._recovered_cursor: Seq | None = None

    async def acquire(self) -> tuple[OwnedPartition, PartitionWriter]:
        """Take the lease, and recover the archive under it.

        Raises:
            BusyapiError: as `ArchiveVolume.read_identity` and `recover`, and `seed.acquire`.
        """
        archive = (
            self.writer.identity if self.writer else await to_thread(self._volume.read_identity)
        )
        if archive is None:  # a new folder: there are no files that another could write
            archive = (await self._recover()).identity
        if self.partition is None:
            self.partition = self._connect(archive.archive_id)
        partition = self.partition
        try:
            await partition.connect()
            was_ours = await acquire_lease(partition, archive, self._config)
        except RedisUnavailable:
            if self.writer is None:  # what is archived can be read without Redis
                await self._recover()
            raise
        if self.writer and was_ours:
            return partition, self.writer
        # Without the lease another flusher may have had the archive meanwhile.
        await self._close_writer(finish=True)
        return partition, await partition.await_with_lease(self._recover())

    async def _recover(self) -> PartitionWriter:
        writer = self.writer = await to_thread(self._volume.recover)
        if writer.cursor != self._recovered_cursor:  # it is recovered at each try of a halt
            self._recovered_cursor = writer.cursor
            log.info("archive_recovered", cursor=writer.cursor)
        return writer

    async def close(self) -> None:
        """Give archive and lease back, in this order: files are changed under the lease alone.

        Raises:
            FsyncFailed: as `PartitionWriter.close`.
        """
        try:
            await self._close_writer(finish=True)
        finally:
            self._volume.unlock()
            await self._release()

    async def abandon(self) -> None:
        """Leave an archive that another process has taken, or whose disk has failed."""
        await self._close_writer(finish=False)
        self._volume.unlock()
        await self._release()

    async def _close_writer(self, *, finish: bool) -> None:
        if self.writer:
            writer, self.writer = self.writer, None
            await to_thread(lambda: writer.close(finish=finish))

    async def _release(self) -> None:
        if self.partition:
            partition, self.partition = self.partition, None
            await partition.release()
