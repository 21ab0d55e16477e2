"""Reading an archive without its lock, while a flusher may write to it.

The flusher changes few names: it renames the open segment when it is finished, and retention
deletes the oldest files. This module detects and follows both. Nothing else in a file that was
listed ever changes, except that blocks are appended to the open segment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import identity, paths
from busyapi.archive.format_version import require_known_version
from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind, FolderListing
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged, ArchiveError
from busyapi.ids import Seq, UsageId

_TRIES = 10


class ArchiveNotFound(ArchiveError):
    """There is no archive in this folder."""


class ArchivePartition(NamedTuple):
    """A partition that can be read."""

    folder: Path
    identity: Identity

    def id_of(self, seq: Seq) -> UsageId:
        """Return the id of a seq."""
        return self.identity.id_of(seq)

    def describe_ids(self, span: SeqRange) -> str:
        """Return a text with the ids of a range of seqs."""
        first, last = self.id_of(span.first), self.id_of(span.last)
        step, last_step = (self.identity.strides.at(seq) for seq in span)
        if last <= first:
            return "no ids" if last < first else f"id {first}"
        if step != last_step:
            return f"ids {first} to {last} in steps of {step} to {last_step}"
        return f"ids {first} to {last}" + (f" in steps of {step}" if step > 1 else "")

    def list_files(self) -> FolderListing:
        """Return its files as they were at one moment."""
        names = list(paths.scan_names(self.folder))
        for _ in range(_TRIES):
            # A folder that changes while it is listed may show a renamed file twice or never.
            second_names = list(paths.scan_names(self.folder))
            if second_names == names:
                break
            names = second_names
        return paths.parse_names(names, self.identity.partition)

    def measure_segments(self, seqs: SeqRange) -> int:
        """Return the bytes of the segments that may hold any of these seqs."""
        total = 0
        for file in self.list_files().files:
            is_open = file.kind is FileKind.OPEN
            is_asked = file.first <= seqs.last and (is_open or file.last >= seqs.first)
            if is_asked and (is_open or file.kind is FileKind.SEGMENT):
                with suppress(OSError):  # it was renamed or deleted meanwhile
                    total += (self.folder / file.path).stat().st_size
        return total

    @contextmanager
    def open_file(self, file: ArchiveFile) -> Iterator[tuple[int, ArchiveFile] | None]:
        """Open a file by its current name; yield None if retention or the writer deleted it.

        Raises:
            ArchiveDamaged: the file does not exist, and there is no reason for that.
            UnknownVersion: a later version wrote the file.
        """
        opened = self._open(file)
        try:
            if opened and opened[1].kind in {FileKind.SEGMENT, FileKind.OPEN}:
                require_known_version(opened[0], str(self.folder / opened[1].path))
            yield opened
        finally:
            if opened:
                os.close(opened[0])

    def _open(self, file: ArchiveFile) -> tuple[int, ArchiveFile] | None:
        current: ArchiveFile | None = file
        while current:
            try:
                return os.open(self.folder / current.path, os.O_RDONLY), current
            except FileNotFoundError:
                current = self._find_renamed(current)
        return None

    def _find_renamed(self, file: ArchiveFile) -> ArchiveFile | None:
        files = self.list_files().files
        if file.kind is FileKind.OPEN:
            for other in files:
                is_same = (other.first, other.day) == (file.first, file.day)
                # A writer finished it, or recovery gave it another name to copy it.
                if is_same and other.kind in {FileKind.SEGMENT, FileKind.OPEN}:
                    return other
            if any(other.first >= file.first for other in files):
                return None  # it was empty, and a new file begins at the same seq
        stored = identity.read_identity(self.folder)
        if stored and file.first < stored.kept_from:
            return None
        raise ArchiveDamaged(f"{file.path} no longer exists")
