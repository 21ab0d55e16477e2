"""Choosing lines out of an archive: by id, by time, by patient."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from busyapi.archive import high_water
from busyapi.archive.archived_usage import parse_line
from busyapi.archive.format import IndexEntry
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS
from busyapi.archive.reader import Frame, read_footer, read_frame_at, scan_frames
from busyapi.archive_cli.ordered_reader import OrderedReader, ProblemReporter
from busyapi.archive_cli.partitions import PartitionStatus
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, UsageExpired
from busyapi.ids import Seq, UsageId, split_usage_id
from busyapi.usage_json import format_received_at


class Query(NamedTuple):
    """Which lines are wanted."""

    since_ms: int = 0
    """Received at this time or after it, in milliseconds since 1970."""
    until_ms: int | None = None
    """Received before it."""
    patient: str | None = None

    def may_match_block(self, earliest_ms: int, latest_ms: int) -> bool:
        """Tell whether a block with these times may hold a wanted line."""
        early = self.until_ms is not None and earliest_ms >= self.until_ms
        return latest_ms >= self.since_ms and not early

    def matches_whole_block(self, earliest_ms: int, latest_ms: int) -> bool:
        """Tell whether every line of a block with these times is wanted."""
        late = self.until_ms is not None and latest_ms >= self.until_ms
        return self.patient is None and earliest_ms >= self.since_ms and not late

    def matches_line(self, line: bytes) -> bool:
        """Tell whether a line is wanted.

        Raises:
            ArchiveDamaged: it is none.
        """
        record = parse_line(line)
        if self.patient is not None:
            said = record.usage.get("patientId")
            if not isinstance(said, str | int) or str(said) != self.patient:
                return False
        # These strings have one width, so they compare as the times do.
        early = record.received_at < format_received_at(self.since_ms)
        late = self.until_ms is not None and record.received_at >= format_received_at(self.until_ms)
        return not early and not late


def select_lines(
    partition: ArchivePartition,
    query: Query,
    report: ProblemReporter,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[list[bytes]]:
    """Give the wanted lines in the order of their ids, each once, without newlines, block by block.

    `advance` gets the size of each file that is done.
    """
    for part in OrderedReader(partition, query.may_match_block, report).read_blocks(advance):
        block, (first, last) = part.frame.block, part.span
        try:
            lines = part.frame.lines()[first - block.first : last - block.first + 1]
            if not query.matches_whole_block(block.earliest_ms, block.latest_ms):
                lines = [each for each in lines if query.matches_line(each)]
        except ArchiveDamaged as error:
            report(f"{part.path}: {partition.describe_ids(part.span)} cannot be read: {error}")
            continue
        yield lines


def find_line(places: Sequence[PartitionStatus], usage: UsageId) -> bytes | None:
    """Return the line of an id, without newline; None if it is the id of no archived usage.

    Raises:
        UsageExpired: it was deleted when its retention time was over.
        ArchiveNotFound: its partition is not here.
        ArchiveDamaged: it was archived, and cannot be read.
    """
    readable = [each.partition for each in places if each.partition]
    if not readable:
        raise ArchiveDamaged("; ".join(each.error for each in places))
    number, seq = split_usage_id(usage, readable[0].identity.partitions)
    for each in places:
        if each.number == number and each.partition:
            return _find_in_partition(each.partition, seq)
        if each.number == number and each.problem == "damaged":
            raise ArchiveDamaged(each.error)
    raise ArchiveNotFound(f"id {usage} is of partition {number}, which is not here")


def _find_in_partition(partition: ArchivePartition, seq: Seq) -> bytes | None:
    if seq < partition.identity.kept_from:
        raise UsageExpired
    reached = high_water.read_mark(partition.folder, partition.identity.archive_id)
    files = partition.list_files().files
    holding = [each for each in files if each.kind is FileKind.SEGMENT and _covers(each, seq)]
    # The finished one counts, if recovery died before it could delete the open one.
    holding += [each for each in files if each.kind is FileKind.OPEN and each.first <= seq]
    trouble: ArchiveDamaged | None = None
    for file in holding:
        try:
            with partition.open_file(file) as found:
                if line := _read_line(*found, seq) if found else None:
                    return line
        except ArchiveDamaged as error:
            trouble = error
    if trouble:
        raise trouble
    covered = any(each.kind in COVERING_KINDS and _covers(each, seq) for each in files)
    if not covered and seq <= max(
        [reached, *(e.last for e in files if e.kind is not FileKind.TORN)]
    ):
        raise ArchiveDamaged(f"id {partition.id_of(seq)} was archived, and is in no file")
    return None


def _covers(file: ArchiveFile, seq: Seq) -> bool:
    return file.first <= seq <= file.last


def _read_line(fd: int, file: ArchiveFile, seq: Seq) -> bytes | None:
    footer = read_footer(fd)
    if footer is None:
        for each in scan_frames(fd):
            if each.block.first <= seq <= each.block.last:
                return each.line(seq)
        if file.kind is FileKind.OPEN:
            return None
    elif (entry := footer.blocks.find(seq)) and (frame := _read_frame(fd, entry)):
        return frame.line(seq)
    raise ArchiveDamaged(f"{file.path}: seq {seq} cannot be read")


def _read_frame(fd: int, entry: IndexEntry) -> Frame | None:
    frame = read_frame_at(fd, entry.offset)
    return frame if frame and frame.block.first == entry.first else None
