"""Lookup of one archived line while the writer continues.

The work is bounded, whatever the size of the archive: one bisection of the list of files, one
footer (the last few stay in memory), and one block.
"""

import errno
import os
import threading
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

from busyapi.archive.format import Footer
from busyapi.archive.format_version import require_known_version
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.reader import Block, read_footer, require_block_at
from busyapi.archive.segment import Segment
from busyapi.errors import ArchiveDamaged, UsageExpired
from busyapi.ids import Seq

FOOTER_CACHE_SIZE = 8
"""Footers in memory. Each has at most 3 MiB, and most have far less."""


class ArchiveLookup:
    """The readable part of a partition: its files, and the accepted blocks of the open segment."""

    def __init__(
        self, folder: Path, files: list[ArchiveFile], kept_from: Seq, damage_reports: list[str]
    ) -> None:
        self.lock = threading.Lock()
        """Guards the next three attributes, and the index and descriptor of the open segment: a
        lookup must not read from a descriptor that the writer has closed. It is held while one
        block is read, never during a sync."""
        self.files = files
        self.segment: Segment | None = None
        self.kept_from = kept_from
        self.unreadable: set[Seq] = set()
        """The first seq of each file that could not be read."""
        self._damage_reports = damage_reports
        self._folder = folder
        self._footer = lru_cache(maxsize=FOOTER_CACHE_SIZE)(self._read_footer)

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
        try:
            entry = self._footer(file).block_index.find(seq)
            fd = os.open(self._folder / file.path, os.O_RDONLY)
        except FileNotFoundError:
            if seq < self.kept_from:  # retention has deleted it meanwhile
                raise UsageExpired from None
            raise ArchiveDamaged(f"{file.path} does not exist any more") from None
        try:
            return require_block_at(fd, entry.offset, file.path) if entry else None
        finally:
            os.close(fd)

    def _read_footer(self, file: ArchiveFile) -> Footer:
        fd = os.open(self._folder / file.path, os.O_RDONLY)
        try:
            footer = read_footer(fd)
            if footer is None:
                require_known_version(fd, file.path)
        finally:
            os.close(fd)
        if footer is None:
            raise ArchiveDamaged(f"{file.path}: its footer is damaged")
        return footer
