"""What the archive of a partition tells about itself: its identity, how far it goes, its size."""

import os
from pathlib import Path

from busyapi.archive import coverage
from busyapi.archive.coverage import Range
from busyapi.archive.highwater import HighWater
from busyapi.archive.identity import Identity
from busyapi.archive.lookup import Lookup
from busyapi.archive.names import Kind
from busyapi.ids import Seq


class Figures:
    """The figures of one partition, kept up to date by its writer."""

    def __init__(
        self, folder: Path, identity: Identity, readable: Lookup, reached: HighWater
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._readable = readable
        self._reached = reached
        self._count()

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
        return self._identity.seeded

    @property
    def restored(self) -> bool:
        """Whether this is a copy of an archive, and `rehome` has not made it the original."""
        return self._identity.restored

    @property
    def replaces(self) -> str:
        """The archive that a person said this one stands in for, "" for none."""
        return self._identity.replaces

    @property
    def prefix(self) -> str:
        """The prefix of the keys that it was seeded under, "" before it was."""
        return self._identity.prefix

    @property
    def gaps(self) -> list[Range]:
        """The seqs of each gap record, in their order."""
        return [
            Range(each.first, each.last) for each in self._readable.files if each.kind is Kind.GAP
        ]

    @property
    def segments(self) -> int:
        """Finished segments."""
        return sum(each.kind is Kind.SEGMENT for each in self._readable.files)

    @property
    def open_bytes(self) -> int:
        """Size of the open segment, 0 if there is none."""
        segment = self._readable.segment
        return segment.size if segment else 0

    @property
    def damaged(self) -> int:
        """Files that were set aside, by this recovery or one before, and those met since."""
        aside = sum(each.kind is Kind.DAMAGED for each in self._readable.files)
        return aside + len(self._readable.rotten)

    def volume_bytes(self) -> tuple[int, int]:
        """Free space of the volume, and its size."""
        volume = os.statvfs(self._folder)
        return volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize

    def _count(self) -> None:
        """Take the figures that follow from the files; there is no open segment now."""
        self.skipped = sum(each.seqs for each in self._readable.files if each.kind is Kind.GAP)
        """Usages in gap records: ids that were never given to one."""
        self.cursor = coverage.cursor(self._readable.files, self.kept_from)
        """The last seq that is in the archive, with all below it."""
        lasts = (each.last for each in self._readable.files)
        self.highest = max([self.cursor, self._reached.seq, *lasts])
        """The largest seq that any file, also one set aside or gone, is known to have held."""
