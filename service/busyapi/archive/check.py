"""Reading one segment as an auditor does: every byte, every line, believing nothing.

A defect is told with the seqs it makes doubtful. Memory holds one block and the index.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from busyapi.archive.browse import Partition
from busyapi.archive.coverage import Range, within
from busyapi.archive.format import Footer, Index
from busyapi.archive.frames import content_size
from busyapi.archive.lines import parse
from busyapi.archive.names import File, Kind
from busyapi.archive.reader import Frame, is_of, read_footer, sha256_holds, walk
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.record import received_at

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Damage = Callable[[Seq, Seq, str], None]
"""Told of each defect: first seq, last seq (below the first where no seq is in doubt), what."""


class SegmentCheck:
    """One check of one segment."""

    def __init__(
        self, partition: Partition, fd: int, file: File, counts: Sequence[Range], damage: Damage
    ) -> None:
        """Begin. `counts` are the seqs of it that no other file answers for."""
        self.usages = 0
        """Lines that are as they should be."""
        self.next = file.first
        """The seq behind the last block that is whole."""
        self.torn_bytes = 0
        """What follows the last whole block of an open segment: a block under way, or torn."""
        self._partition, self._fd, self._file = partition, fd, file
        self._counts = counts
        self._tell = damage
        self._index = Index()
        self._end = 0
        self._raw_bytes = 0

    def run(self, advance: Callable[[int], None]) -> None:
        """Check all of it; `advance` is told the bytes that were read."""
        for frame in walk(self._fd):
            self._check_place(frame)
            if any(within(Range(frame.block.first, frame.block.last), self._counts)):
                self._check_lines(frame)
            self._index.add(frame.offset, frame.block)
            self._raw_bytes += content_size(frame.data)
            self.next, self._end = Seq(frame.block.last + 1), frame.end
            advance(frame.block.size)
        if self._file.kind is Kind.OPEN:
            footer = read_footer(self._fd)  # there if its writer died before the rename
            end = footer.offset if footer else os.fstat(self._fd).st_size
            self.torn_bytes = max(0, end - self._end)
        else:
            self._check_end()

    def _check_place(self, frame: Frame) -> None:
        """The block must stand behind the one before it, and go on where that one ends."""
        block = frame.block
        if (frame.offset, block.first) != (self._end, self.next):
            what = (
                f"no whole block of seq {self.next} at {self._end}, the next is at {frame.offset}"
            )
            self._damage(self.next, Seq(block.first - 1), what)
        identity = self._partition.identity
        if (block.partition, block.partitions) != (identity.partition, identity.partitions):
            self._damage(block.first, block.last, "is of another partition")

    def _check_lines(self, frame: Frame) -> None:
        block = frame.block
        try:
            lines = frame.lines()
        except ArchiveDamaged as error:
            self._damage(block.first, block.last, str(error))
            return
        times: set[str] = set()
        bad = [
            Seq(seq)
            for seq, line in enumerate(lines, block.first)
            if not self._is_of(Seq(seq), line, times)
        ]
        for first, last in within(Range(block.first, block.last), self._counts):
            self.usages += last - first + 1 - sum(first <= each <= last for each in bad)
        if bad:
            what = f"{len(bad)} of these are no lines of the archive, or have another id"
            self._damage(bad[0], bad[-1], what)
        if times and not _are_times(times, block.earliest_ms, block.latest_ms):
            self._damage(block.first, block.last, "has a receivedAt that is wrong")

    def _is_of(self, seq: Seq, line: bytes, times: set[str]) -> bool:
        """Tell whether a line is that of a seq; collect when it was received."""
        try:
            record = parse(line)
        except ArchiveDamaged:
            return False
        times.add(record.received_at)
        return record.id == self._partition.id_of(seq)

    def _check_end(self) -> None:
        """A finished segment ends with a footer that says what was found before it."""
        footer = read_footer(self._fd)
        if self.next <= self._file.last:
            self._damage(self.next, self._file.last, "ends too early")
        if footer is None:
            self._doubt("its footer is damaged")
            return
        if not sha256_holds(self._fd, footer):
            self._doubt("its SHA-256 does not hold")
        identity = self._partition.identity
        if not is_of(footer, self._file, identity.partition, identity.partitions):
            self._doubt("its footer is of another file")
        if not self._agrees(footer):
            self._doubt("its footer does not say what it holds")

    def _agrees(self, footer: Footer) -> bool:
        said = (footer.usages, footer.raw_bytes, footer.offset, footer.blocks.packed)
        usages = self._file.last - self._file.first + 1
        return said == (usages, self._raw_bytes, self._end, self._index.packed)

    def _damage(self, first: Seq, last: Seq, what: str) -> None:
        """Tell of damage; in an open segment only of seqs that count, or beside one that does."""
        if self._file.kind is not Kind.OPEN:
            self._tell(first, last, what)
            return
        if last < first and any(within(Range(Seq(first - 1), first), self._counts)):
            self._tell(first, last, what)
        for each in within(Range(first, last), self._counts):
            self._tell(*each, what)

    def _doubt(self, what: str) -> None:
        self._damage(self._file.first, Seq(self._file.first - 1), what)


def _are_times(times: Iterable[str], earliest_ms: int, latest_ms: int) -> bool:
    """Tell whether these are times as we write them, the first and the last as the header says."""
    try:
        for each in times:
            datetime.fromisoformat(each)
        bounds = received_at(earliest_ms), received_at(latest_ms)
    except (ValueError, OverflowError, OSError):
        return False
    written = all(_TIME.fullmatch(each) for each in times)
    return written and (min(times), max(times)) == bounds
