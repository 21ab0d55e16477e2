"""One page of a query: the matching usages of a range of seqs, as far as limits allow.

A page says up to which seq it is complete. So a reader that continues after that seq gets each
matching usage once, whatever was archived, finished or deleted in between.
"""

import time
from typing import NamedTuple

from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.ordered_reader import OrderedReader, SelectedBlock
from busyapi.archive_cli.query import BlockTimes, select_from_block
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq, UsageId
from busyapi.stamp import split_archived_stamp


class Visibility(NamedTuple):
    """The usages that a reader may see who may not see all: by their stamp."""

    tenant: str = ""
    """Of this tenant; "" for none."""
    writer: str = ""
    """With this writer; "" for none."""

    def includes(self, line: bytes) -> bool:
        """Return whether a line of the archive, without newline, may be seen."""
        stamp = split_archived_stamp(line).stamp
        if stamp is None:
            return False
        return "" != stamp.tenant == self.tenant or "" != stamp.writer == self.writer


class PageLimits(NamedTuple):
    """Where a page ends."""

    usages: int
    bytes: int
    """The last usage may exceed it."""
    seconds: float
    """From the first block on, which is read however long it takes. The files are listed before:
    with as many as years leave, that alone may take longer."""


class Page(NamedTuple):
    """The matching usages up to a seq."""

    lines: list[tuple[Seq, bytes]]
    """Each line with its seq, without newline."""
    through: Seq
    """Up to this seq, `lines` has every matching usage."""
    lacks_filter: bool
    """A segment was read that has no filter of its patients, and could have one."""


class _Complete(Exception):
    """The page has reached a limit."""


def read_page(
    partition: ArchivePartition,
    seqs: SeqRange,
    query: Query,
    limits: PageLimits,
    visibility: Visibility | None = None,
) -> Page:
    """Read the page that begins with the first of these seqs, which are all archived.

    Raises:
        ArchiveDamaged: something in the range of the page cannot be read. A page leaves out
            nothing in silence.
    """
    return _PageReader(partition, seqs, query, limits, visibility).read()


class _PageReader:
    def __init__(
        self,
        partition: ArchivePartition,
        seqs: SeqRange,
        query: Query,
        limits: PageLimits,
        visibility: Visibility | None,
    ) -> None:
        self._partition, self._seqs, self._query = partition, seqs, query
        self._limits, self._visibility = limits, visibility
        self._end: float | None = None
        self._lines: list[tuple[Seq, bytes]] = []
        self._bytes = 0
        self._reader = OrderedReader(
            partition, self._may_match_block, self._fail, seqs, patients=query.patients
        )

    def read(self) -> Page:
        """Read until the end of the range or a limit."""
        try:
            for part in self._reader.read_blocks():
                self._add_block(part)
        except _Complete:
            last = self._lines[-1][0] if self._is_full() else self._reader.passed
            self._reader.report_problems(last)
            return Page(self._lines, last, self._reader.lacks_filter)
        return Page(self._lines, self._seqs.last, self._reader.lacks_filter)

    def _may_match_block(self, earliest_ms: int, latest_ms: int) -> bool:
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._limits.seconds
        has_progress = self._reader.passed >= self._seqs.first
        if has_progress and now > self._end:
            raise _Complete
        return self._query.may_match_block(earliest_ms, latest_ms)

    def _add_block(self, part: SelectedBlock) -> None:
        lines = select_from_block(part, self._query, BlockTimes())
        for line in lines.split(b"\n")[:-1]:
            if self._visibility is None or self._visibility.includes(line):
                self._lines.append((self._find_seq(line), line))
                self._bytes += len(line)
                if self._is_full():
                    raise _Complete

    def _is_full(self) -> bool:
        limits = self._limits
        return len(self._lines) >= limits.usages or self._bytes >= limits.bytes

    def _find_seq(self, line: bytes) -> Seq:
        number = line[len(b'{"id":') : line.index(b",")]
        seq = self._partition.identity.find_seq(UsageId(int(number)))
        if seq is None:
            raise ArchiveDamaged("a line has an id that its partition cannot have")
        return seq

    @staticmethod
    def _fail(problem: str) -> None:
        raise ArchiveDamaged(problem)
