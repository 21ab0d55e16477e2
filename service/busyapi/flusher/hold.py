"""What a flusher has while it owns its partition: the lease, the archive, a connection.

Nothing is taken before the right to it is known: `claim` locks the folder, compares its identity
with the partition's record, and takes the lease. Only then are files changed. Nothing is kept in a
failed state: `close` gives everything back.

Lock and lease are two guards, and each holds alone. Where another flusher of the same archive has
the lease, or the open segment is no longer the file at its path, the lock is void: `abandon` leaves
the open segment as it is, and the next `claim` is that of a newcomer.
"""

from asyncio import to_thread
from collections.abc import Callable

import structlog

from busyapi.archive.volume import Volume
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import RedisAway
from busyapi.flusher.compare import Install, claim
from busyapi.ids import Seq
from busyapi.stream.partition import Partition

log = structlog.get_logger()


class Hold:
    """One flusher's hold on its partition."""

    def __init__(
        self, install: Install, volume: Volume, connect: Callable[[str], Partition]
    ) -> None:
        self.writer: PartitionWriter | None = None
        self.partition: Partition | None = None
        self._install = install
        self._volume = volume
        self._connect = connect
        self._recovered: Seq | None = None

    async def claim(self) -> tuple[Partition, PartitionWriter]:
        """Take the lease, and recover the archive under it.

        Raises:
            BusyapiError: as `Volume.look` and `recover`, and `seed.claim`.
        """
        archive = self.writer.identity if self.writer else await to_thread(self._volume.look)
        if archive is None:  # a new folder: there are no files that another could write
            archive = (await self._recover()).identity
        if self.partition is None:
            self.partition = self._connect(archive.archive_id)
        partition = self.partition
        try:
            await partition.connect()
            was_ours = await claim(partition, archive, self._install)
        except RedisAway:
            if self.writer is None:  # what is archived can be read without Redis
                await self._recover()
            raise
        if self.writer and was_ours:
            return partition, self.writer
        # Without the lease another flusher may have had the archive meanwhile.
        await self._close_writer(finish=True)
        return partition, await partition.while_renewing(self._recover())

    async def _recover(self) -> PartitionWriter:
        writer = self.writer = await to_thread(self._volume.recover)
        if writer.cursor != self._recovered:  # it is recovered at each try of a halt
            self._recovered = writer.cursor
            log.info("archive_recovered", cursor=writer.cursor)
        return writer

    async def close(self) -> None:
        """Give archive and lease back, in this order: files are changed under the lease alone.

        Raises:
            SyncFailed: as `PartitionWriter.close`.
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
