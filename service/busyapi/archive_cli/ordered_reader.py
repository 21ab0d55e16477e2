"""The blocks of a partition in the order of their seqs, each seq once, by the rules of FORMAT.md.

If a finished segment and an open one hold the same seqs, the finished one is authoritative: a crash
may have ended recovery between copy and unlink. Seqs that cannot be read, are in no file or are in
two files are reported with their ids and skipped.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from busyapi.archive import high_water, identity
from busyapi.archive.format import IndexEntry, SegmentSummary
from busyapi.archive.index_file import read_patients
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_holes, find_overlaps, intersect
from busyapi.archive.reader import (
    Block,
    matches_file,
    read_format,
    read_indexed_block,
    read_summary,
    scan_blocks,
)
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import MAX_ID, Seq

ProblemReporter = Callable[[str], None]
"""Called with a description of each problem; reading continues after it."""


ALL_SEQS = SeqRange(Seq(1), Seq(MAX_ID))
NO_SEQS = SeqRange(Seq(1), Seq(0))


class SelectedBlock(NamedTuple):
    """A block, and the seqs that the reader takes from it."""

    path: str
    block: Block
    span: SeqRange


class OrderedReader:
    """Reads one partition once."""

    def __init__(
        self,
        partition: ArchivePartition,
        may_match_block: Callable[[int, int], bool],
        report: ProblemReporter,
        seqs: SeqRange = ALL_SEQS,
        *,
        patients: frozenset[str] = frozenset(),
        skip_block: Callable[[IndexEntry], bool] | None = None,
    ) -> None:
        """Prepare. `may_match_block` decides by earliest and latest receivedAt.

        Only `seqs` are read, and only of them is anything reported. Of a segment that has none of
        the `patients`, if any are given, a block is not read if `skip_block` returns True. Without
        this function, such a segment is skipped as one block.
        """
        self._seqs = seqs
        self._patients, self._skip_block = patients, skip_block
        self._partition = partition
        self._may_match_block = may_match_block
        self._report = report
        self._next_seq = Seq(1)
        """The seq after the last complete block of the file that was read last."""
        self.passed = Seq(seqs.first - 1)
        """The last seq that was yielded and taken, or skipped by its time."""
        self.lacks_filter = False
        """A segment in the time of the search has no filter of patients, and could have one."""
        self._covering: list[ArchiveFile] = []
        self._opened: tuple[ArchiveFile, SeqRange] | None = None
        """The open segment that is being read, and what the reader takes from it."""

    def read_blocks(
        self, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[SelectedBlock]:
        """Yield the blocks; `advance` gets the number of bytes that were read or skipped."""
        # Read the mark first: what it covers was on disk before the files are listed.
        reached = high_water.read_mark(self._partition.folder, self._partition.identity.archive_id)
        files = self._partition.list_files().files
        floor = self._partition.identity.kept_from
        self._covering = [
            file for file in files if file.kind in COVERING_KINDS and file.last >= floor
        ]
        at = floor
        for planned, file in _plan_reads(files, floor):
            span = _restrict(planned, self._seqs)
            if span is None:
                continue
            self._opened = (file, span) if file.kind is FileKind.OPEN else None
            for part in self._read_file(file, span, advance):
                first, last = max(part.span.first, at), part.span.last
                if first <= last:
                    yield part._replace(span=SeqRange(first, last))
                    at = Seq(last + 1)
            self._cover_opened()
        lasts = (file.last for file in files if file.kind is not FileKind.DOUBTFUL)
        self._report_holes_and_overlaps(max([reached, *lasts]))

    def report_problems(self, through: Seq) -> None:
        """Report what is missing up to a seq; for a caller that does not read to the end."""
        self._cover_opened()
        self._report_holes_and_overlaps(through)

    def _cover_opened(self) -> None:
        if self._opened:
            file, span = self._opened
            read = SeqRange(file.first, Seq(self._next_seq - 1))
            self._covering += [
                file._replace(first=first, last=last, kind=FileKind.SEGMENT)
                for first, last in intersect(read, [span])
            ]
        self._opened = None

    def _report_holes_and_overlaps(self, highest: Seq) -> None:
        stored = identity.read_identity(self._partition.folder)
        # Read it again: what retention has deleted in the meantime is not missing.
        floor = stored.kept_from if stored else self._partition.identity.kept_from
        covering = sorted(self._covering)
        first, last = max(floor, self._seqs.first), min(highest, self._seqs.last)
        for hole in find_holes(covering, first, last):
            self._report(f"{self._partition.describe_ids(hole)}: in no file")
        for one, other in find_overlaps(covering):
            overlap = SeqRange(other.first, min(one.last, other.last))
            if _restrict(overlap, self._seqs):
                ids = self._partition.describe_ids(overlap)
                self._report(f"{ids}: in {one.path} and in {other.path}, read from one of them")

    def _read_file(
        self, file: ArchiveFile, span: SeqRange, advance: Callable[[int], None]
    ) -> Iterator[SelectedBlock]:
        self._next_seq = file.first
        done = 0
        try:
            with self._partition.open_file(file) as opened:
                if opened is None:
                    return
                fd, current = opened
                size = os.fstat(fd).st_size
                for block in self._select_blocks(fd, current, span):
                    advance(block.end - done)
                    done = block.end
                    for part in intersect(SeqRange(block.header.first, block.header.last), [span]):
                        yield SelectedBlock(current.path, block, part)
                advance(size - done)
        except (ArchiveDamaged, OSError) as error:
            self._report(f"{file.path}: {error}")

    def _select_blocks(self, fd: int, file: ArchiveFile, span: SeqRange) -> Iterator[Block]:
        own = self._partition.identity
        is_finished = file.kind is FileKind.SEGMENT
        summary = read_summary(fd, self._partition.folder, file) if is_finished else None
        is_own = summary and matches_file(summary, file, own.owner_at(file.first))
        if summary and is_own:
            self._next_seq = Seq(file.last + 1)
            may_match = self._may_match_block(*summary.block_index.find_times())
            lacks_patients = may_match and self._lacks_patients(file, summary)
            skip = self._skip_block if lacks_patients else None
            if not may_match or (lacks_patients and skip is None):
                self._pass(SeqRange(file.first, file.last), span)
                return
            for entry in summary.block_index.overlapping(*span):
                seqs = SeqRange(entry.first, entry.last)
                may_match = self._may_match_block(entry.earliest_ms, entry.latest_ms)
                if may_match and not (skip and skip(entry)):
                    if block := read_indexed_block(fd, summary, entry):
                        yield block
                    else:
                        self._report_unreadable(file, seqs, span)
                self._pass(seqs, span)
            return
        if file.kind is FileKind.SEGMENT and read_format(fd) == 1:
            self._report(f"{file.path}: its footer is damaged, or belongs to another file")
        elif file.kind is FileKind.SEGMENT:
            self.lacks_filter = True
        yield from self._scan_blocks(fd, file, span)

    def _lacks_patients(self, file: ArchiveFile, summary: SegmentSummary) -> bool:
        """Return whether the filter of a segment excludes all the patients."""
        if not self._patients or summary.format == 1:
            return False
        stated = read_patients(self._partition.folder, file, summary.sha256)
        self.lacks_filter |= stated is None
        return stated is not None and not any(map(stated.may_hold, self._patients))

    def _scan_blocks(self, fd: int, file: ArchiveFile, span: SeqRange) -> Iterator[Block]:
        """Yield the complete blocks of a file that has no reliable footer or index."""
        own = self._partition.identity
        for block in scan_blocks(fd, own.ids):
            header = block.header
            self._report_unreadable(file, SeqRange(self._next_seq, Seq(header.first - 1)), span)
            self._next_seq = Seq(header.last + 1)
            if header.owner != own.owner_at(header.first):
                self._report(
                    f"{file.path}: the block at {block.offset} belongs to another partition"
                )
            elif self._may_match_block(header.earliest_ms, header.latest_ms):
                yield block
            self._pass(SeqRange(header.first, header.last), span)
        if file.kind is FileKind.SEGMENT:
            self._report_unreadable(file, SeqRange(self._next_seq, file.last), span)

    def _pass(self, seqs: SeqRange, span: SeqRange) -> None:
        # Beyond `span`, another file has the rest of the block, and is read later.
        self.passed = max(self.passed, Seq(min(seqs.last, span.last)))

    def _report_unreadable(self, file: ArchiveFile, seqs: SeqRange, span: SeqRange) -> None:
        for part in intersect(seqs, [span]):
            self._report(f"{file.path}: {self._partition.describe_ids(part)} cannot be read")


def _restrict(span: SeqRange, seqs: SeqRange) -> SeqRange | None:
    return next(intersect(span, [seqs]), None)


def _plan_reads(files: Iterable[ArchiveFile], floor: Seq) -> list[tuple[SeqRange, ArchiveFile]]:
    """Return which seqs to read from which file, in the order of the seqs."""
    segments = [file for file in files if file.kind is FileKind.SEGMENT and file.last >= floor]
    holes = list(find_holes(segments, floor, Seq(MAX_ID)))
    plan = [(SeqRange(max(file.first, floor), file.last), file) for file in segments]
    plan += [
        (hole, file)
        for file in files
        if file.kind is FileKind.OPEN
        for hole in holes
        if hole.last >= file.first
    ]
    return sorted(plan)
