"""Figures of one partition's archive: how far it goes, its files, its size."""

import os
from pathlib import Path

from busyapi.archive import ranges
from busyapi.archive.high_water import HighWaterMark
from busyapi.archive.lookup import ArchiveLookup
from busyapi.archive.paths import FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.ids import Seq


class ArchiveStats:
    """The figures of one partition, which its writer keeps current."""

    def __init__(self, folder: Path, lookup: ArchiveLookup, high_water: HighWaterMark) -> None:
        self.cursor = Seq(0)
        """The last seq that is in the archive together with all seqs below it."""
        self.highest_seq = Seq(0)
        """The largest seq that any file ever held, as far as is known. Files that were set aside or
        deleted count too."""
        self.skipped_seqs = 0
        """Seqs in gap records: no usage has their ids."""
        self._folder = folder
        self._lookup = lookup
        self._high_water = high_water
        self.update()

    def update(self) -> None:
        """Calculate the figures that follow from the files, while no segment is open."""
        files = self._lookup.files
        self.skipped_seqs = sum(file.seq_count for file in files if file.kind is FileKind.GAP)
        self.cursor = ranges.find_cursor(files, self._lookup.kept_from)
        last_seqs = (file.last for file in files)
        self.highest_seq = max([self.cursor, self._high_water.seq, *last_seqs])

    def record_append(self, last: Seq) -> None:
        """Record that a block up to this seq is on disk."""
        self.cursor = self.highest_seq = last

    @property
    def gaps(self) -> list[SeqRange]:
        """The seqs of each gap record, in order."""
        return [
            SeqRange(file.first, file.last)
            for file in self._lookup.files
            if file.kind is FileKind.GAP
        ]

    @property
    def last_usage(self) -> Seq:
        """The last seq up to the cursor that is not in a gap record, 0 if there is none."""
        seq = self.cursor
        for gap in reversed(self.gaps):
            if gap.last == seq:
                seq = Seq(gap.first - 1)
        return seq

    @property
    def finished_segments(self) -> int:
        """The number of finished segments."""
        return sum(file.kind is FileKind.SEGMENT for file in self._lookup.files)

    @property
    def open_bytes(self) -> int:
        """The size of the open segment, 0 without one."""
        segment = self._lookup.segment
        return segment.size if segment else 0

    @property
    def damaged_files(self) -> int:
        """The number of files that any recovery set aside or that could not be read since."""
        set_aside = sum(file.kind is FileKind.DAMAGED for file in self._lookup.files)
        return set_aside + len(self._lookup.unreadable)

    def read_volume_bytes(self) -> tuple[int, int]:
        """Return the free space of the volume, and its size."""
        volume = os.statvfs(self._folder)
        return volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize
