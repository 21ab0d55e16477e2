"""The holders as a flusher reads and writes them: from its archive, and only while it owns it."""

import asyncio
from pathlib import Path

from busyapi.archive.holders import (
    Holders,
    delete_accepted,
    delete_holders,
    read_accepted,
    read_holders,
    write_holders,
)
from busyapi.archive.writer import PartitionWriter
from busyapi.failpoints import failpoint
from busyapi.stream.partition import OwnedPartition


class HolderRecord:
    """The file with the holders, and its content as last read or written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holders: Holders | None = None

    async def read(self, *, again: bool = False) -> Holders:
        """Return the holders; `again` reads the file although its content is known.

        Raises:
            ArchiveDamaged: the file cannot be read.
        """
        if self._holders is None or again:
            self._holders = await asyncio.to_thread(read_holders, self._folder)
        return self._holders

    async def remove(self, holders: Holders) -> Holders:
        """Write holders that have no server which is not on disk; return them.

        Raises:
            ArchiveFull, FsyncFailed: as `write_holders`.
        """
        if holders != self._holders:
            failpoint("holders-before-write")
            await asyncio.to_thread(write_holders, self._folder, holders)
            failpoint("holders-after-write")
            self._holders = holders
        return holders

    async def add(
        self, holders: Holders, partition: OwnedPartition, writer: PartitionWriter
    ) -> Holders:
        """Write holders that may have a new server; return them.

        Another flusher may have removed the server, and allowed commits without it. So archive and
        lease are checked directly before the write.

        Raises:
            ArchiveFull, FsyncFailed: as `write_holders`.
            ArchiveTakenOver, LeaseLost, RedisUnavailable: this flusher does not own the partition.
        """
        known = (await self.read()).processes.items()
        if not holders.processes.items() <= known:
            await asyncio.to_thread(writer.check_ownership)
            await partition.renew_lease()
        return await self.remove(holders)

    async def delete(self) -> bool:
        """Delete the file; return whether it existed.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        self._holders = None
        return await asyncio.to_thread(delete_holders, self._folder)

    async def is_accepted(self, server_id: str) -> bool:
        """Return whether an operator has accepted this process as the primary.

        Raises:
            ArchiveDamaged: the operator's file cannot be read.
        """
        return await asyncio.to_thread(read_accepted, self._folder) == server_id

    async def end_acceptance(self) -> None:
        """Delete the operator's file; raises as `delete`."""
        await asyncio.to_thread(delete_accepted, self._folder)
