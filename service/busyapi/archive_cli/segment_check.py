"""Reading one segment as an auditor does: every byte, every line, believing nothing.

A defect is told with the seqs it makes doubtful. Memory holds one block and the index.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from busyapi.archive.archived_usage import parse_line
from busyapi.archive.compression import read_content_size
from busyapi.archive.format import Footer, SegmentIndex
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange, intersect
from busyapi.archive.reader import Frame, matches_file, read_footer, scan_frames, verify_sha256
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.usage_json import format_received_at

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

DamageReporter = Callable[[Seq, Seq, str], None]
"""Told of each defect: first seq, last seq (below the first where no seq is in doubt), what."""


class SegmentCheck:
    """One check of one segment."""

    def __init__(
        self,
        partition: ArchivePartition,
        fd: int,
        file: ArchiveFile,
        counts: Sequence[SeqRange],
        damage: DamageReporter,
    ) -> None:
        """Begin. `counts` are the seqs of it that no other file answers for."""
        self.usages = 0
        """Lines that are as they should be."""
        self.next_seq = file.first
        """The seq behind the last block that is whole."""
        self.torn_bytes = 0
        """What follows the last whole block of an open segment: a block under way, or torn."""
        self._partition, self._fd, self._file = partition, fd, file
        self._counts = counts
        self._report = damage
        self._index = SegmentIndex()
        self._end = 0
        self._raw_bytes = 0

    def run(self, advance: Callable[[int], None]) -> None:
        """Check all of it; `advance` is told the bytes that were read."""
        for frame in scan_frames(self._fd):
            self._check_place(frame)
            if any(intersect(SeqRange(frame.block.first, frame.block.last), self._counts)):
                self._check_lines(frame)
            self._index.add(frame.offset, frame.block)
            self._raw_bytes += read_content_size(frame.data)
            self.next_seq, self._end = Seq(frame.block.last + 1), frame.end
            advance(frame.block.size)
        if self._file.kind is FileKind.OPEN:
            footer = read_footer(self._fd)  # there if its writer died before the rename
            end = footer.offset if footer else os.fstat(self._fd).st_size
            self.torn_bytes = max(0, end - self._end)
        else:
            self._check_end()

    def _check_place(self, frame: Frame) -> None:
        """The block must stand behind the one before it, and go on where that one ends."""
        block = frame.block
        if (frame.offset, block.first) != (self._end, self.next_seq):
            what = (
                f"no whole block of seq {self.next_seq} at {self._end},"
                f" the next is at {frame.offset}"
            )
            self._report_damage(self.next_seq, Seq(block.first - 1), what)
        identity = self._partition.identity
        if (block.partition, block.partitions) != (identity.partition, identity.partitions):
            self._report_damage(block.first, block.last, "is of another partition")

    def _check_lines(self, frame: Frame) -> None:
        block = frame.block
        try:
            lines = frame.lines()
        except ArchiveDamaged as error:
            self._report_damage(block.first, block.last, str(error))
            return
        times: set[str] = set()
        bad = [
            Seq(seq)
            for seq, line in enumerate(lines, block.first)
            if not self._is_line_of(Seq(seq), line, times)
        ]
        for first, last in intersect(SeqRange(block.first, block.last), self._counts):
            self.usages += last - first + 1 - sum(first <= each <= last for each in bad)
        if bad:
            what = f"{len(bad)} of these are no lines of the archive, or have another id"
            self._report_damage(bad[0], bad[-1], what)
        if times and not _are_valid_times(times, block.earliest_ms, block.latest_ms):
            self._report_damage(block.first, block.last, "has a receivedAt that is wrong")

    def _is_line_of(self, seq: Seq, line: bytes, times: set[str]) -> bool:
        """Tell whether a line is that of a seq; collect when it was received."""
        try:
            record = parse_line(line)
        except ArchiveDamaged:
            return False
        times.add(record.received_at)
        return record.id == self._partition.id_of(seq)

    def _check_end(self) -> None:
        """A finished segment ends with a footer that says what was found before it."""
        footer = read_footer(self._fd)
        if self.next_seq <= self._file.last:
            self._report_damage(self.next_seq, self._file.last, "ends too early")
        if footer is None:
            self._report_footer_damage("its footer is damaged")
            return
        if not verify_sha256(self._fd, footer):
            self._report_footer_damage("its SHA-256 does not hold")
        identity = self._partition.identity
        if not matches_file(footer, self._file, identity.partition, identity.partitions):
            self._report_footer_damage("its footer is of another file")
        if not self._matches_footer(footer):
            self._report_footer_damage("its footer does not say what it holds")

    def _matches_footer(self, footer: Footer) -> bool:
        said = (footer.usages, footer.raw_bytes, footer.offset, footer.blocks.packed)
        usages = self._file.last - self._file.first + 1
        return said == (usages, self._raw_bytes, self._end, self._index.packed)

    def _report_damage(self, first: Seq, last: Seq, what: str) -> None:
        """Tell of damage; in an open segment only of seqs that count, or beside one that does."""
        if self._file.kind is not FileKind.OPEN:
            self._report(first, last, what)
            return
        if last < first and any(intersect(SeqRange(Seq(first - 1), first), self._counts)):
            self._report(first, last, what)
        for each in intersect(SeqRange(first, last), self._counts):
            self._report(*each, what)

    def _report_footer_damage(self, what: str) -> None:
        self._report_damage(self._file.first, Seq(self._file.first - 1), what)


def _are_valid_times(times: Iterable[str], earliest_ms: int, latest_ms: int) -> bool:
    """Tell whether these are times as we write them, the first and the last as the header says."""
    try:
        for each in times:
            datetime.fromisoformat(each)
        bounds = format_received_at(earliest_ms), format_received_at(latest_ms)
    except (ValueError, OverflowError, OSError):
        return False
    written = all(_TIME.fullmatch(each) for each in times)
    return written and (min(times), max(times)) == bounds
