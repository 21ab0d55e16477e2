"""Reading an archive without its lock, while a writer may go on.

What a writer does meanwhile changes few names: the open segment gets its finished name, retention
deletes the oldest files. Both are seen here and followed; nothing else of a file ever changes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import identity, paths
from busyapi.archive.format_version import require_known_version
from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind, FolderListing
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged, ArchiveError
from busyapi.ids import Seq, UsageId, make_usage_id

_TRIES = 10


class ArchiveNotFound(ArchiveError):
    """There is no archive in this folder."""


class ArchivePartition(NamedTuple):
    """A partition that can be read."""

    folder: Path
    identity: Identity

    def id_of(self, seq: Seq) -> UsageId:
        """Return the id of a seq."""
        return make_usage_id(seq, self.identity.partition, self.identity.partitions)

    def describe_ids(self, span: SeqRange) -> str:
        """Name the ids that a range of seqs has."""
        first, last, step = self.id_of(span.first), self.id_of(span.last), self.identity.partitions
        if last <= first:
            return "no ids" if last < first else f"id {first}"
        return f"ids {first} to {last}" + (f" in steps of {step}" if step > 1 else "")

    def list_files(self) -> FolderListing:
        """List its files, as they were at one moment."""
        listing = paths.list_files(self.folder, self.identity.partition)
        for _ in range(_TRIES):
            # A folder that changes while it is listed may show a renamed file twice or never.
            again = paths.list_files(self.folder, self.identity.partition)
            if again == listing:
                break
            listing = again
        return listing

    @contextmanager
    def open_file(self, file: ArchiveFile) -> Iterator[tuple[int, ArchiveFile] | None]:
        """Open a file under the name it has now; None if it is rightly gone.

        Raises:
            ArchiveDamaged: it is gone, and should not be.
            UnknownVersion: a later version wrote it.
        """
        found = self._open(file)
        try:
            if found and found[1].kind in {FileKind.SEGMENT, FileKind.OPEN}:
                require_known_version(found[0], str(self.folder / found[1].path))
            yield found
        finally:
            if found:
                os.close(found[0])

    def _open(self, file: ArchiveFile) -> tuple[int, ArchiveFile] | None:
        now: ArchiveFile | None = file
        while now:
            try:
                return os.open(self.folder / now.path, os.O_RDONLY), now
            except FileNotFoundError:
                now = self._renamed(now)
        return None

    def _renamed(self, file: ArchiveFile) -> ArchiveFile | None:
        files = self.list_files().files
        if file.kind is FileKind.OPEN:
            for each in files:
                if (each.first, each.day, each.kind) == (file.first, file.day, FileKind.SEGMENT):
                    return each
            if any(each.first >= file.first for each in files):
                return None  # it was empty: what came instead begins where it did
        said = identity.read_identity(self.folder)
        if said and file.first < said.kept_from:
            return None
        raise ArchiveDamaged(f"{file.path} is gone")
