"""The blocks of a partition in the order of their seqs, each seq once, as FORMAT.md counts them.

Finished segments count before an open one that holds the same seqs: recovery may have died between
the copy and the unlink. What cannot be read, is in no file or is in two is told to `complain`, with
its ids, and passed over.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from busyapi.archive import highwater, identity
from busyapi.archive.browse import Partition
from busyapi.archive.coverage import COVERING, Range, holes, overlaps, within
from busyapi.archive.names import File, Kind
from busyapi.archive.reader import Frame, frame_at, is_of, read_footer, walk
from busyapi.errors import ArchiveDamaged
from busyapi.ids import MAX_ID, Seq

Complain = Callable[[str], None]
"""Called with each thing that could not be read; reading continues behind it."""


class Part(NamedTuple):
    """A block, and which of its seqs are to be taken from it."""

    path: str
    frame: Frame
    span: Range


class InOrder:
    """One reading of one partition."""

    def __init__(
        self, partition: Partition, times: Callable[[int, int], bool], complain: Complain
    ) -> None:
        """Begin. `times` says of a block's earliest and latest receivedAt whether it is wanted."""
        self._partition = partition
        self._times = times
        self._complain = complain
        self._next = Seq(1)
        """The seq that follows the last whole block of the file that was read last."""

    def run(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[Part]:
        """Give the blocks; `advance` gets the size of each file that is done."""
        # First: what it covers was on disk before the files are listed.
        reached = highwater.read(self._partition.folder, self._partition.identity.archive_id)
        files = self._partition.listing().files
        floor = self._partition.identity.kept_from
        covering = [each for each in files if each.kind in COVERING and each.last >= floor]
        at = floor
        for span, file in _plan(files, floor):
            for part in self._of_file(file, span, advance):
                first, last = max(part.span.first, at), part.span.last
                if first <= last:
                    yield part._replace(span=Range(first, last))
                    at = Seq(last + 1)
            if file.kind is Kind.OPEN:
                held = within(Range(file.first, Seq(self._next - 1)), [span])
                covering += [file._replace(first=a, last=b, kind=Kind.SEGMENT) for a, b in held]
        lasts = (each.last for each in files if each.kind is not Kind.TORN)
        self._compare(covering, max([reached, *lasts]))

    def _compare(self, covering: list[File], highest: Seq) -> None:
        said = identity.read(self._partition.folder)
        # Asked again: what retention has deleted meanwhile is not missing.
        floor = said.kept_from if said else self._partition.identity.kept_from
        covering.sort()
        for hole in holes(covering, floor, highest):
            self._complain(f"{self._partition.ids(hole)}: in no file")
        for one, other in overlaps(covering):
            both = self._partition.ids(Range(other.first, min(one.last, other.last)))
            self._complain(f"{both}: in {one.path} and in {other.path}, read from one of them")

    def _of_file(self, file: File, span: Range, advance: Callable[[int], None]) -> Iterator[Part]:
        self._next = file.first
        try:
            with self._partition.opened(file) as opened:
                if opened is None:
                    return
                fd, found = opened
                for frame in self._frames(fd, found, span):
                    for part in within(Range(frame.block.first, frame.block.last), [span]):
                        yield Part(found.path, frame, part)
                advance(os.fstat(fd).st_size)
        except (ArchiveDamaged, OSError) as error:
            self._complain(f"{file.path}: {error}")

    def _frames(self, fd: int, file: File, span: Range) -> Iterator[Frame]:
        said = self._partition.identity
        footer = read_footer(fd) if file.kind is Kind.SEGMENT else None
        if footer and is_of(footer, file, said.partition, said.partitions):
            self._next = Seq(file.last + 1)
            for entry in footer.blocks:
                if not self._times(entry.earliest_ms, entry.latest_ms):
                    continue
                frame = frame_at(fd, entry.offset)
                if frame and (frame.block.first, frame.block.last) == (entry.first, entry.last):
                    yield frame
                else:
                    self._lacks(file, Range(entry.first, entry.last), span)
            return
        if file.kind is Kind.SEGMENT:
            self._complain(f"{file.path}: its footer is damaged, or that of another file")
        yield from self._walk(fd, file, span)

    def _walk(self, fd: int, file: File, span: Range) -> Iterator[Frame]:
        """Give the whole blocks of a file without a footer that can be believed."""
        said = self._partition.identity
        for frame in walk(fd):
            block = frame.block
            self._lacks(file, Range(self._next, Seq(block.first - 1)), span)
            self._next = Seq(block.last + 1)
            if (block.partition, block.partitions) != (said.partition, said.partitions):
                self._complain(f"{file.path}: the block at {frame.offset} is another partition's")
            elif self._times(block.earliest_ms, block.latest_ms):
                yield frame
        if file.kind is Kind.SEGMENT:
            self._lacks(file, Range(self._next, file.last), span)

    def _lacks(self, file: File, seqs: Range, span: Range) -> None:
        for each in within(seqs, [span]):
            self._complain(f"{file.path}: {self._partition.ids(each)} cannot be read")


def _plan(files: Iterable[File], floor: Seq) -> list[tuple[Range, File]]:
    """List which file answers for which seqs, in their order."""
    finished = [each for each in files if each.kind is Kind.SEGMENT and each.last >= floor]
    left = list(holes(finished, floor, Seq(MAX_ID)))
    plan = [(Range(max(each.first, floor), each.last), each) for each in finished]
    plan += [
        (each, file)
        for file in files
        if file.kind is Kind.OPEN
        for each in left
        if each.last >= file.first
    ]
    return sorted(plan)
