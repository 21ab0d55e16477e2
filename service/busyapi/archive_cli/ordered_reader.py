"""The blocks of a partition in the order of their seqs, each seq once, as FORMAT.md counts them.

Finished segments count before an open one that holds the same seqs: recovery may have died between
the copy and the unlink. What cannot be read, is in no file or is in two is told to `complain`, with
its ids, and passed over.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from busyapi.archive import high_water, identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_holes, find_overlaps, intersect
from busyapi.archive.reader import Frame, matches_file, read_footer, read_frame_at, scan_frames
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import MAX_ID, Seq

ProblemReporter = Callable[[str], None]
"""Called with each thing that could not be read; reading continues behind it."""


class SelectedBlock(NamedTuple):
    """A block, and which of its seqs are to be taken from it."""

    path: str
    frame: Frame
    span: SeqRange


class OrderedReader:
    """One reading of one partition."""

    def __init__(
        self,
        partition: ArchivePartition,
        times: Callable[[int, int], bool],
        complain: ProblemReporter,
    ) -> None:
        """Begin. `times` says of a block's earliest and latest receivedAt whether it is wanted."""
        self._partition = partition
        self._may_match_block = times
        self._report = complain
        self._next_seq = Seq(1)
        """The seq that follows the last whole block of the file that was read last."""

    def read_blocks(
        self, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[SelectedBlock]:
        """Give the blocks; `advance` gets the size of each file that is done."""
        # First: what it covers was on disk before the files are listed.
        reached = high_water.read_mark(self._partition.folder, self._partition.identity.archive_id)
        files = self._partition.list_files().files
        floor = self._partition.identity.kept_from
        covering = [each for each in files if each.kind in COVERING_KINDS and each.last >= floor]
        at = floor
        for span, file in _plan_reads(files, floor):
            for part in self._read_file(file, span, advance):
                first, last = max(part.span.first, at), part.span.last
                if first <= last:
                    yield part._replace(span=SeqRange(first, last))
                    at = Seq(last + 1)
            if file.kind is FileKind.OPEN:
                held = intersect(SeqRange(file.first, Seq(self._next_seq - 1)), [span])
                covering += [file._replace(first=a, last=b, kind=FileKind.SEGMENT) for a, b in held]
        lasts = (each.last for each in files if each.kind is not FileKind.TORN)
        self._report_gaps(covering, max([reached, *lasts]))

    def _report_gaps(self, covering: list[ArchiveFile], highest: Seq) -> None:
        said = identity.read_identity(self._partition.folder)
        # Asked again: what retention has deleted meanwhile is not missing.
        floor = said.kept_from if said else self._partition.identity.kept_from
        covering.sort()
        for hole in find_holes(covering, floor, highest):
            self._report(f"{self._partition.describe_ids(hole)}: in no file")
        for one, other in find_overlaps(covering):
            both = self._partition.describe_ids(SeqRange(other.first, min(one.last, other.last)))
            self._report(f"{both}: in {one.path} and in {other.path}, read from one of them")

    def _read_file(
        self, file: ArchiveFile, span: SeqRange, advance: Callable[[int], None]
    ) -> Iterator[SelectedBlock]:
        self._next_seq = file.first
        try:
            with self._partition.open_file(file) as opened:
                if opened is None:
                    return
                fd, found = opened
                for frame in self._read_frames(fd, found, span):
                    for part in intersect(SeqRange(frame.block.first, frame.block.last), [span]):
                        yield SelectedBlock(found.path, frame, part)
                advance(os.fstat(fd).st_size)
        except (ArchiveDamaged, OSError) as error:
            self._report(f"{file.path}: {error}")

    def _read_frames(self, fd: int, file: ArchiveFile, span: SeqRange) -> Iterator[Frame]:
        said = self._partition.identity
        footer = read_footer(fd) if file.kind is FileKind.SEGMENT else None
        if footer and matches_file(footer, file, said.partition, said.partitions):
            self._next_seq = Seq(file.last + 1)
            for entry in footer.blocks:
                if not self._may_match_block(entry.earliest_ms, entry.latest_ms):
                    continue
                frame = read_frame_at(fd, entry.offset)
                if frame and (frame.block.first, frame.block.last) == (entry.first, entry.last):
                    yield frame
                else:
                    self._report_unreadable(file, SeqRange(entry.first, entry.last), span)
            return
        if file.kind is FileKind.SEGMENT:
            self._report(f"{file.path}: its footer is damaged, or that of another file")
        yield from self._scan_frames(fd, file, span)

    def _scan_frames(self, fd: int, file: ArchiveFile, span: SeqRange) -> Iterator[Frame]:
        """Give the whole blocks of a file without a footer that can be believed."""
        said = self._partition.identity
        for frame in scan_frames(fd):
            block = frame.block
            self._report_unreadable(file, SeqRange(self._next_seq, Seq(block.first - 1)), span)
            self._next_seq = Seq(block.last + 1)
            if (block.partition, block.partitions) != (said.partition, said.partitions):
                self._report(f"{file.path}: the block at {frame.offset} is another partition's")
            elif self._may_match_block(block.earliest_ms, block.latest_ms):
                yield frame
        if file.kind is FileKind.SEGMENT:
            self._report_unreadable(file, SeqRange(self._next_seq, file.last), span)

    def _report_unreadable(self, file: ArchiveFile, seqs: SeqRange, span: SeqRange) -> None:
        for each in intersect(seqs, [span]):
            self._report(f"{file.path}: {self._partition.describe_ids(each)} cannot be read")


def _plan_reads(files: Iterable[ArchiveFile], floor: Seq) -> list[tuple[SeqRange, ArchiveFile]]:
    """List which file answers for which seqs, in their order."""
    finished = [each for each in files if each.kind is FileKind.SEGMENT and each.last >= floor]
    left = list(find_holes(finished, floor, Seq(MAX_ID)))
    plan = [(SeqRange(max(each.first, floor), each.last), each) for each in finished]
    plan += [
        (each, file)
        for file in files
        if file.kind is FileKind.OPEN
        for each in left
        if each.last >= file.first
    ]
    return sorted(plan)
