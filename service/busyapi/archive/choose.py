"""Choosing lines out of an archive: by id, by time, by patient."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from busyapi.archive import highwater
from busyapi.archive.browse import NoArchive, Partition
from busyapi.archive.coverage import COVERING
from busyapi.archive.format import Entry
from busyapi.archive.in_order import Complain, InOrder
from busyapi.archive.lines import parse
from busyapi.archive.names import File, Kind
from busyapi.archive.reader import Frame, frame_at, read_footer, walk
from busyapi.archive.survey import Place
from busyapi.errors import ArchiveDamaged, NoLongerKept
from busyapi.ids import Seq, UsageId, locate
from busyapi.record import received_at


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
    """Give the wanted lines in the order of their ids, each once, without newlines, block by block.

    `advance` gets the size of each file that is done.
    """
    for part in InOrder(partition, selection.may_be_in, complain).run(advance):
        block, (first, last) = part.frame.block, part.span
        try:
            lines = part.frame.lines()[first - block.first : last - block.first + 1]
            if not selection.takes_all(block.earliest_ms, block.latest_ms):
                lines = [each for each in lines if selection.takes(each)]
        except ArchiveDamaged as error:
            complain(f"{part.path}: {partition.ids(part.span)} cannot be read: {error}")
            continue
        yield lines


def find_line(places: Sequence[Place], usage: UsageId) -> bytes | None:
    """Return the line of an id, without newline; None if it is the id of no archived usage.

    Raises:
        NoLongerKept: it was deleted when its retention time was over.
        NoArchive: its partition is not here.
        ArchiveDamaged: it was archived, and cannot be read.
    """
    readable = [each.partition for each in places if each.partition]
    if not readable:
        raise ArchiveDamaged("; ".join(each.trouble for each in places))
    number, seq = locate(usage, readable[0].identity.partitions)
    for each in places:
        if each.number == number and each.partition:
            return _find(each.partition, seq)
        if each.number == number and each.kind == "damaged":
            raise ArchiveDamaged(each.trouble)
    raise NoArchive(f"id {usage} is of partition {number}, which is not here")


def _find(partition: Partition, seq: Seq) -> bytes | None:
    if seq < partition.identity.kept_from:
        raise NoLongerKept
    reached = highwater.read(partition.folder, partition.identity.archive_id)
    files = partition.listing().files
    holding = [each for each in files if each.kind is Kind.SEGMENT and _claims(each, seq)]
    # The finished one counts, if recovery died before it could delete the open one.
    holding += [each for each in files if each.kind is Kind.OPEN and each.first <= seq]
    trouble: ArchiveDamaged | None = None
    for file in holding:
        try:
            with partition.opened(file) as found:
                if line := _line(*found, seq) if found else None:
                    return line
        except ArchiveDamaged as error:
            trouble = error
    if trouble:
        raise trouble
    covered = any(each.kind in COVERING and _claims(each, seq) for each in files)
    if not covered and seq <= max([reached, *(e.last for e in files if e.kind is not Kind.TORN)]):
        raise ArchiveDamaged(f"id {partition.id_of(seq)} was archived, and is in no file")
    return None


def _claims(file: File, seq: Seq) -> bool:
    return file.first <= seq <= file.last


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


def _frame(fd: int, entry: Entry) -> Frame | None:
    frame = frame_at(fd, entry.offset)
    return frame if frame and frame.block.first == entry.first else None
