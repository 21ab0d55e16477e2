"""What the archive of a partition tells about itself: its identity, how far it goes, its size."""

import os
from pathlib import Path

from busyapi.archive import ranges
from busyapi.archive.high_water import HighWaterMark
from busyapi.archive.identity import Identity
from busyapi.archive.lookup import ArchiveLookup
from busyapi.archive.paths import FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.ids import Seq


class ArchiveStats:
    """The figures of one partition, kept up to date by its writer."""

    def __init__(
        self, folder: Path, identity: Identity, readable: ArchiveLookup, reached: HighWaterMark
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._lookup = readable
        self._high_water = reached
        self._update_stats()

    @property
    def identity(self) -> Identity:
        """What the folder is."""
        return self._identity

    @property
    def archive_id(self) -> str:
        """A random name, made once."""
        return self._identity.archive_id

    @property
    def bound(self) -> int:
        """The largest bound ever in force, in usages."""
        return self._identity.bound

    @property
    def kept_from(self) -> Seq:
        """The first seq that retention has left."""
        return self._identity.kept_from

    @property
    def seeded(self) -> bool:
        """Whether ids may have been given out that this archive is to hold."""
        return self._identity.is_seeded

    @property
    def restored(self) -> bool:
        """Whether this is a copy of an archive, and `rehome` has not made it the original."""
        return self._identity.is_copy

    @property
    def replaces(self) -> str:
        """The archive that a person said this one stands in for, "" for none."""
        return self._identity.replaces

    @property
    def prefix(self) -> str:
        """The prefix of the keys that it was seeded under, "" before it was."""
        return self._identity.prefix

    @property
    def gaps(self) -> list[SeqRange]:
        """The seqs of each gap record, in their order."""
        return [
            SeqRange(each.first, each.last)
            for each in self._lookup.files
            if each.kind is FileKind.GAP
        ]

    @property
    def finished_segments(self) -> int:
        """Finished segments."""
        return sum(each.kind is FileKind.SEGMENT for each in self._lookup.files)

    @property
    def open_bytes(self) -> int:
        """Size of the open segment, 0 if there is none."""
        segment = self._lookup.segment
        return segment.size if segment else 0

    @property
    def damaged_files(self) -> int:
        """Files that were set aside, by this recovery or one before, and those met since."""
        aside = sum(each.kind is FileKind.DAMAGED for each in self._lookup.files)
        return aside + len(self._lookup.unreadable)

    def volume_bytes(self) -> tuple[int, int]:
        """Free space of the volume, and its size."""
        volume = os.statvfs(self._folder)
        return volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize

    def _update_stats(self) -> None:
        """Take the figures that follow from the files; there is no open segment now."""
        self.skipped_seqs = sum(
            each.seq_count for each in self._lookup.files if each.kind is FileKind.GAP
        )
        """Usages in gap records: ids that were never given to one."""
        self.cursor = ranges.find_cursor(self._lookup.files, self.kept_from)
        """The last seq that is in the archive, with all below it."""
        lasts = (each.last for each in self._lookup.files)
        self.highest_seq = max([self.cursor, self._high_water.seq, *lasts])
        """The largest seq that any file, also one set aside or gone, is known to have held."""
