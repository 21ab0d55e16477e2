"""Choosing lines out of an archive: by id, by time, by patient."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from busyapi.archive.browse import NoArchive, Partition
from busyapi.archive.format import Entry
from busyapi.archive.lines import parse
from busyapi.archive.names import File, Kind
from busyapi.archive.reader import Frame, frame_at, read_footer, walk
from busyapi.errors import ArchiveDamaged, NoLongerKept
from busyapi.ids import Seq, UsageId, locate
from busyapi.record import received_at

Complain = Callable[[str], None]
"""Told of each thing that could not be read; reading goes on behind it."""


class Selection(NamedTuple):
    """Which lines are wanted."""

    since_ms: int = 0
    """Received at this time or after it, in milliseconds since 1970."""
    until_ms: int | None = None
    """Received before it."""
    patient: str | None = None

    def may_be_in(self, earliest_ms: int, latest_ms: int) -> bool:
        """Tell whether a block with these times may hold a wanted line."""
        early = self.until_ms is not None and earliest_ms >= self.until_ms
        return latest_ms >= self.since_ms and not early

    def takes_all(self, earliest_ms: int, latest_ms: int) -> bool:
        """Tell whether every line of a block with these times is wanted."""
        late = self.until_ms is not None and latest_ms >= self.until_ms
        return self.patient is None and earliest_ms >= self.since_ms and not late

    def takes(self, line: bytes) -> bool:
        """Tell whether a line is wanted.

        Raises:
            ArchiveDamaged: it is none.
        """
        record = parse(line)
        if self.patient is not None:
            said = record.usage.get("patientId")
            if not isinstance(said, str | int) or str(said) != self.patient:
                return False
        # These strings have one width, so they compare as the times do.
        early = record.received_at < received_at(self.since_ms)
        late = self.until_ms is not None and record.received_at >= received_at(self.until_ms)
        return not early and not late


def choose(
    partition: Partition,
    selection: Selection,
    complain: Complain,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[list[bytes]]:
    """Give the wanted lines in the order of their ids, without newlines, block by block.

    `advance` is told the bytes of each file that is done.
    """
    for file in partition.listing().files:
        if file.kind in {Kind.SEGMENT, Kind.OPEN}:
            with partition.opened(file) as found:
                if found:
                    yield from _of_file(*found, selection, complain)
                    advance(os.fstat(found[0]).st_size)


def find_line(among: Sequence[Partition], usage: UsageId) -> bytes | None:
    """Return the line of an id, without newline; None if there is none.

    Raises:
        NoLongerKept: it was deleted when its retention time was over.
        NoArchive: its partition is not here.
        ArchiveDamaged: it cannot be read.
    """
    number, seq = locate(usage, among[0].identity.partitions)
    for each in among:
        if each.identity.partition == number:
            return _find(each, seq)
    raise NoArchive(f"id {usage} is of partition {number}, which is not here")


def _of_file(
    fd: int, file: File, selection: Selection, complain: Complain
) -> Iterator[list[bytes]]:
    for frame in _frames(fd, file, selection, complain):
        times = frame.block.earliest_ms, frame.block.latest_ms
        try:
            lines = frame.lines()
            if not selection.takes_all(*times):
                lines = [each for each in lines if selection.takes(each)]
        except ArchiveDamaged as error:
            complain(f"{file.path}: {error}")
            continue
        yield lines


def _frames(fd: int, file: File, selection: Selection, complain: Complain) -> Iterator[Frame]:
    footer = read_footer(fd)
    if footer is None:
        if file.kind is Kind.SEGMENT:
            complain(f"{file.path}: its footer is damaged")
        for each in walk(fd):
            if selection.may_be_in(each.block.earliest_ms, each.block.latest_ms):
                yield each
        return
    for entry in footer.blocks:
        if selection.may_be_in(entry.earliest_ms, entry.latest_ms):
            if frame := _frame(fd, entry):
                yield frame
            else:
                complain(f"{file.path}: seqs {entry.first} to {entry.last} cannot be read")


def _frame(fd: int, entry: Entry) -> Frame | None:
    frame = frame_at(fd, entry.offset)
    return frame if frame and frame.block.first == entry.first else None


def _find(partition: Partition, seq: Seq) -> bytes | None:
    if seq < partition.identity.kept_from:
        raise NoLongerKept
    for file in partition.listing().files:
        within = file.first <= seq and (file.kind is Kind.OPEN or seq <= file.last)
        if within and file.kind in {Kind.SEGMENT, Kind.OPEN}:
            with partition.opened(file) as found:
                return _line(*found, seq) if found else None
    return None


def _line(fd: int, file: File, seq: Seq) -> bytes | None:
    footer = read_footer(fd)
    if footer is None:
        for each in walk(fd):
            if each.block.first <= seq <= each.block.last:
                return each.line(seq)
        if file.kind is Kind.OPEN:
            return None
    elif (entry := footer.blocks.find(seq)) and (frame := _frame(fd, entry)):
        return frame.line(seq)
    raise ArchiveDamaged(f"{file.path}: seq {seq} cannot be read")
