"""Lookup of one archived line while the writer continues.

The work is bounded, whatever the size of the archive: one bisection of the list of files, one
index or footer (the last few stay in memory), and one block. Only a segment whose index is missing
or wrong is read completely, once.
"""

import errno
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from busyapi.archive.format import SegmentSummary
from busyapi.archive.format_version import require_known_version
from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.reader import (
    Block,
    read_format,
    read_indexed_block,
    read_summary,
    scan_blocks,
)
from busyapi.archive.segment import Segment
from busyapi.archive.segment_state import summarize_blocks
from busyapi.errors import ArchiveDamaged, UsageExpired
from busyapi.ids import Seq

SUMMARY_CACHE_SIZE = 8
"""Indexes and footers in memory. Each has at most 3 MiB, and most have far less."""
_TRIES = 3


class _FileReplaced(Exception):
    """`busyapi archive upgrade` replaced the file between two opens."""


class ArchiveLookup:
    """The readable part of a partition: its files, and the accepted blocks of the open segment."""

    def __init__(
        self,
        folder: Path,
        files: list[ArchiveFile],
        identity: Identity,
        damage_reports: list[str],
    ) -> None:
        self.lock = threading.Lock()
        """Guards the next three attributes, and the index and descriptor of the open segment: a
        lookup must not read from a descriptor that the writer has closed. It is held while one
        block is read, never during a sync."""
        self.files = files
        self.segment: Segment | None = None
        self.kept_from = identity.kept_from
        self.unreadable: set[Seq] = set()
        """The first seq of each file that could not be read."""
        self._damage_reports = damage_reports
        self.ids = identity.ids
        """How seqs become ids; another object after the stride has changed."""
        self._folder = folder
        self._summary = lru_cache(maxsize=SUMMARY_CACHE_SIZE)(self._read_summary)
        self._blocks = lru_cache(maxsize=SUMMARY_CACHE_SIZE)(self._read_blocks)

    def set_open_segment(self, segment: Segment) -> None:
        """Set a new open segment."""
        with self.lock:
            self.segment = segment

    def add_file(self, file: ArchiveFile) -> None:
        """Add a file that is on disk. It replaces the open segment, if there is one."""
        with self.lock:
            self.segment = None
            self.files.append(file)
            self.files.sort()

    def close(self) -> None:
        """Close the open segment, if there is one."""
        with self.lock:
            if self.segment:
                self.segment.close()
            self.segment = None

    def remove_files(self, files: list[ArchiveFile], kept_from: Seq) -> None:
        """Remove files that were deleted or are about to be, and set the floor of retention."""
        with self.lock:
            self.kept_from = kept_from
            self.files = sorted(set(self.files).difference(files))

    def find_line(self, seq: Seq) -> bytes | None:
        """Return the line of a seq, without newline; None if no file holds it.

        Raises:
            UsageExpired: retention deleted it.
            ArchiveDamaged: its block cannot be read.
        """
        try:
            return self._find_line(seq)
        except ArchiveDamaged:
            self._report_damage(seq)
            raise
        except OSError as error:
            if error.errno == errno.EIO:  # a bad sector; other errors are not damage to the file
                self._report_damage(seq)
            raise

    def _find_line(self, seq: Seq) -> bytes | None:
        with self.lock:
            if 0 < seq < self.kept_from:
                raise UsageExpired
            block = self.segment.read_block(seq) if self.segment else None
            file = self._find_file(seq)
        if block is None and file is not None and file.kind is FileKind.SEGMENT:
            block = self._read_block(file, seq)
        return block.line(seq) if block else None

    def _report_damage(self, seq: Seq) -> None:
        """Report damage of the file that holds a seq, once for each file."""
        with self.lock:
            file, segment = self._find_file(seq), self.segment
            # The first seq identifies the file: a segment keeps it when it is finished.
            first = file.first if file else segment.first if segment else None
            if first is None or first in self.unreadable:
                return
            self.unreadable.add(first)
            path = file.path if file else segment.path.name if segment else ""
            self._damage_reports.append(
                f"{path} in {self._folder} is damaged: a lookup could not read it"
            )

    def _find_file(self, seq: Seq) -> ArchiveFile | None:
        at = bisect_right(self.files, seq, key=lambda file: file.first) - 1
        # The list includes damaged files, which may begin at the same seq as a good one.
        while at >= 0 and self.files[at].kind is FileKind.DAMAGED:
            at -= 1
        return self.files[at] if at >= 0 and seq <= self.files[at].last else None

    def _read_block(self, file: ArchiveFile, seq: Seq) -> Block | None:
        for _ in range(_TRIES):
            try:
                fd = os.open(self._folder / file.path, os.O_RDONLY)
            except FileNotFoundError:
                if seq < self.kept_from:  # retention has deleted it meanwhile
                    raise UsageExpired from None
                raise ArchiveDamaged(f"{file.path} does not exist any more") from None
            try:
                return self._read_from(fd, file, seq)
            except _FileReplaced:
                continue
            finally:
                os.close(fd)
        raise ArchiveDamaged(f"{file.path} was replaced again and again")

    def _read_from(self, fd: int, file: ArchiveFile, seq: Seq) -> Block:
        inode = os.fstat(fd).st_ino
        summary = self._summary(file, inode)
        if summary is None:  # a part of the file is damaged, perhaps another one
            blocks = (block for block in scan_blocks(fd, self.ids) if _holds(block, seq))
            block = next(blocks, None)
        else:
            block = _read_indexed(fd, summary, seq)
            if block is None and summary.format > 1:  # the index may be what is wrong
                summary = self._blocks(file, inode)
                block = _read_indexed(fd, summary, seq) if summary else None
        if block is None:
            raise ArchiveDamaged(f"{file.path}: the block of seq {seq} is damaged")
        return block

    def _read_summary(self, file: ArchiveFile, inode: int) -> SegmentSummary | None:
        """Read the summary of a segment; None if it is of format 2 and damaged.

        The inode distinguishes a file from the one that replaced it.
        """
        with self._open(file, inode) as fd:
            summary = read_summary(fd, self._folder, file)
            if summary is None and read_format(fd) == 1:
                require_known_version(fd, file.path)
                raise ArchiveDamaged(f"{file.path}: its footer is damaged")
        return summary or self._blocks(file, inode)

    def _read_blocks(self, file: ArchiveFile, inode: int) -> SegmentSummary | None:
        """Read all of a segment of format 2; None if it is damaged. Its index does not matter."""
        with self._open(file, inode) as fd:
            return summarize_blocks(fd, file, self.ids)

    @contextmanager
    def _open(self, file: ArchiveFile, inode: int) -> Iterator[int]:
        fd = os.open(self._folder / file.path, os.O_RDONLY)
        try:
            if os.fstat(fd).st_ino != inode:
                raise _FileReplaced
            yield fd
        finally:
            os.close(fd)


def _read_indexed(fd: int, summary: SegmentSummary, seq: Seq) -> Block | None:
    entry = summary.block_index.find(seq)
    return read_indexed_block(fd, summary, entry) if entry else None


def _holds(block: Block, seq: Seq) -> bool:
    return block.header.first <= seq <= block.header.last
