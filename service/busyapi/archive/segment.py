"""One segment while it is being written.

    create ──> write, sync, accept ──> write, sync, accept ──> … ──> finish: index, sync, rename

A block becomes part of the segment, its index and its SHA-256 only when it is accepted, after its
sync. A write that fails before that is truncated away. The identity says in which format to write:
in format 1 the index is a footer of the file, in format 2 a file of its own.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from busyapi.archive import paths
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.format import (
    TRAILER_SIZE,
    BlockHeader,
    SegmentIndex,
    SegmentSummary,
    encode_block_header,
    encode_footer,
    encode_trailer,
)
from busyapi.archive.frames import add_checksum
from busyapi.archive.fsync import create_file, make_folder, rename_file, sync_file, write_at
from busyapi.archive.identity import Identity
from busyapi.archive.index_file import write_temporary_index
from busyapi.archive.lock import is_same_file
from busyapi.archive.open_index import OpenIndex
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.reader import Block, read_indexed_block, scan_blocks
from busyapi.errors import ArchiveDamaged, ArchiveTakenOver, FsyncFailed
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

MAX_BLOCKS = 65_536
"""The most blocks in a segment. Lookups read its whole index, which stays below 3 MiB."""


class Segment:
    """A file that holds the blocks from seq `first` on."""

    def __init__(
        self, folder: Path, identity: Identity, day: str, first: Seq, suffix: str = ""
    ) -> None:
        """Create the file and put its name on disk.

        Recovery gives its copies a suffix, so that a copy never counts as an open segment, even if
        the process dies.
        """
        self.first, self.last = first, Seq(first - 1)
        self.day = day
        self.size = 0
        self.raw_bytes = 0
        self.latest_ms: int | None = None
        """The latest receivedAt in the accepted blocks."""
        self.index = SegmentIndex()
        self._opened = time.monotonic()
        self._identity = identity
        self._folder = folder
        if identity.format == 1:
            name = paths.name_file(FileKind.OPEN, day, identity.partition, first)
        else:
            name = paths.name_open_segment(day, identity.partition, first)
        self.path = folder / (name.path + suffix)
        # A copy that recovery or a conversion makes is never an open segment.
        has_index = identity.format > 1 and not suffix
        self._open_index = OpenIndex(folder / paths.index_path(name)) if has_index else None
        self._sha = hashlib.sha256()
        self._checksums = b""
        make_folder(folder / day)
        self._fd = create_file(self.path)

    def write(self, header: BlockHeader, data: bytes) -> bytes:
        """Write a block after the accepted ones; return its bytes, for `accept`.

        Raises:
            OSError: the write failed and was truncated away; the segment is as before.
            FsyncFailed: the write failed and could not be truncated away.
        """
        written = encode_block_header(header) + data if self._identity.format == 1 else data
        self._write(written)
        return written

    def sync(self) -> None:
        """Put what was written on disk.

        Raises:
            FsyncFailed: what the disk holds is unknown.
        """
        sync_file(self._fd, self.path.name)

    def accept(self, header: BlockHeader, written: bytes, raw_bytes: int) -> None:
        """Make a written block part of the segment."""
        self.index.add(self.size, header)
        if self._open_index:
            self._open_index.add(self.size, header)
        self._sha.update(written)
        self._checksums = add_checksum(self._checksums, written)
        self.size += len(written)
        self.raw_bytes += raw_bytes
        self.last = header.last
        self.latest_ms = max(self.latest_ms or 0, header.latest_ms)

    def read_block(self, seq: Seq) -> Block | None:
        """Read the block that holds a seq; return None if no accepted block holds it.

        Raises:
            ArchiveDamaged: the bytes read differ from those written.
        """
        entry = self.index.find(seq)
        if entry is None:
            return None
        block = read_indexed_block(self._fd, self._summarize(), entry)
        if block is None:
            raise ArchiveDamaged(f"{self.path.name}: the block at {entry.offset} is damaged")
        return block

    def read_blocks(self) -> Iterator[Block]:
        """Yield all blocks as the file holds them."""
        return scan_blocks(self._fd, self._identity.ids)

    def is_due(self, config: ArchiveConfig) -> bool:
        """Return whether to finish the segment now."""
        return (
            self.size >= config.segment_bytes
            or len(self.index) >= MAX_BLOCKS
            or time.monotonic() - self._opened >= config.segment_age
            or self.day != paths.utc_day()
        )

    def finish(self) -> ArchiveFile:
        """Write the index or footer and rename the file to its final name, all on disk.

        The segment stays readable through this object until `close`. If the process dies before
        the rename, recovery copies the blocks and finishes the copy.

        Raises:
            OSError: the segment is not finished, and can still be written.
            FsyncFailed: what the disk holds is unknown.
        """
        file = paths.name_file(
            FileKind.SEGMENT, self.day, self._identity.partition, self.first, self.last
        )
        if self._identity.format == 1:
            self._finish_with_footer(file)
        else:
            self._finish_with_index(file)
        if self._open_index:
            self._open_index.remove()
        return file

    def check_ownership(self) -> None:
        """Check that the path still leads to this file.

        Raises:
            ArchiveTakenOver: a recovery by another process has copied and removed the file. Blocks
                written since may be in no file that counts.
        """
        if not is_same_file(self._fd, self.path):
            raise ArchiveTakenOver(f"{self.path} was removed or replaced while it was written")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def remove(self) -> None:
        """Remove the file, which holds nothing that counts."""
        self.path.unlink(missing_ok=True)

    def _finish_with_index(self, file: ArchiveFile) -> None:
        """Put the index on disk, and then the final name: only complete segments have an index.

        The blocks are on disk already. If the process dies between the renames, recovery copies the
        segment and replaces the index. If a power cut keeps only the second one, the index is
        missing, and recovery makes it.
        """
        index = self._folder / paths.index_path(file)
        temporary = write_temporary_index(index, self._summarize(self._sha.digest()))
        failpoint("archive-after-index")
        try:
            # Another process may have taken the path meanwhile: its file must not get this name.
            self.check_ownership()
            temporary.rename(index)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        try:
            rename_file(self.path, self._folder / file.path)
        except OSError:
            if is_same_file(self._fd, self.path):
                index.unlink(missing_ok=True)
            raise

    def _finish_with_footer(self, file: ArchiveFile) -> None:
        """Write the footer and the final name, both on disk."""
        self._write(self._make_footer())
        failpoint("archive-after-footer")
        self.sync()
        # Another process may have taken the path meanwhile: its file must not get this name.
        self.check_ownership()
        try:
            rename_file(self.path, self._folder / file.path)
        except OSError:
            # Without this a later, shorter block would leave the rest of the footer after it, and
            # recovery would take those bytes for a doubtful block.
            if is_same_file(self._fd, self.path):
                self._truncate()
            raise

    def _make_footer(self) -> bytes:
        body = encode_footer(self._summarize())
        sha = self._sha.copy()
        sha.update(body)
        return body + encode_trailer(sha.digest(), len(body) + TRAILER_SIZE)

    def _summarize(self, sha256: bytes = b"") -> SegmentSummary:
        return SegmentSummary(
            *self._identity.owner_at(self.first),
            self.first,
            self.last,
            self.last - self.first + 1,
            self.raw_bytes,
            self.index,
            self.size,
            sha256,
            self._identity.format,
            self._checksums,
        )

    def _write(self, data: bytes) -> None:
        try:
            failpoint("archive-write")
            write_at(self._fd, data, self.size)
        except OSError:
            self._truncate()
            raise

    def _truncate(self) -> None:
        """Truncate the file after the accepted blocks."""
        try:
            failpoint("archive-cut")
            os.ftruncate(self._fd, self.size)
        except OSError as error:
            raise FsyncFailed(
                f"{self.path.name} cannot be cut back to {self.size} bytes:"
                f" {os.strerror(error.errno or 0)}"
            ) from error
