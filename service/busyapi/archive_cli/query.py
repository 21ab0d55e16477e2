"""Selection of lines of an archive: by id, or by a query."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from busyapi.archive import high_water
from busyapi.archive.block_builder import MAX_RECEIVED_MS
from busyapi.archive.format import IndexEntry
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange
from busyapi.archive.reader import read_indexed_block, read_summary, scan_blocks
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.ordered_reader import (
    ALL_SEQS,
    OrderedReader,
    ProblemReporter,
    SelectedBlock,
)
from busyapi.archive_cli.partitions import PartitionStatus
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, UsageExpired
from busyapi.ids import Seq, UsageId


@dataclass
class BlockTimes:
    """The times of the blocks that were looked at, to explain why nothing matched."""

    earliest_ms: int = MAX_RECEIVED_MS
    latest_ms: int | None = None
    """None: there was no block."""
    lines_in_time: int = 0
    """Lines that were received in the time of the query, whatever their content."""

    def add_block(self, earliest_ms: int, latest_ms: int) -> None:
        """Add the times of a block."""
        self.earliest_ms = min(self.earliest_ms, earliest_ms)
        self.latest_ms = max(self.latest_ms or 0, latest_ms)


def select_lines(
    partition: ArchivePartition,
    query: Query,
    report: ProblemReporter,
    advance: Callable[[int], None] = lambda _: None,
    times: BlockTimes | None = None,
    *,
    seqs: SeqRange = ALL_SEQS,
) -> Iterator[bytes]:
    """Yield the matching lines of each block: in the order of ids, each once, with newlines.

    `advance` gets the number of bytes that have been read or skipped, `times` the times of each
    block.
    """
    times = times or BlockTimes()

    def may_match_block(earliest_ms: int, latest_ms: int) -> bool:
        times.add_block(earliest_ms, latest_ms)
        return query.may_match_block(earliest_ms, latest_ms)

    def skip_block(entry: IndexEntry) -> bool:
        if is_covered := query.covers_block(entry.earliest_ms, entry.latest_ms):
            times.lines_in_time += entry.last - entry.first + 1
        return is_covered

    reader = OrderedReader(
        partition, may_match_block, report, seqs, patients=query.patients, skip_block=skip_block
    )
    for part in reader.read_blocks(advance):
        try:
            lines = select_from_block(part, query, times)
        except ArchiveDamaged as error:
            report(f"{part.path}: {partition.describe_ids(part.span)} cannot be read: {error}")
            continue
        if lines:
            yield lines


def select_from_block(part: SelectedBlock, query: Query, times: BlockTimes) -> bytes:
    """Return the matching lines of a block, and count those that were received in the time.

    Raises:
        ArchiveDamaged: the block or a line is not what it must be.
    """
    header = part.block.header
    lines = part.block.read_span(part.span)
    if query.covers_block(header.earliest_ms, header.latest_ms):
        times.lines_in_time += part.span.last - part.span.first + 1
    else:
        lines = query.select_received(lines)
        times.lines_in_time += lines.count(b"\n")
    return query.select_content(lines) if query.has_content_conditions else lines


def find_line(statuses: Sequence[PartitionStatus], usage_id: UsageId) -> bytes | None:
    """Return the line of an id, without newline; None if no usage with this id is archived.

    Raises:
        UsageExpired: the usage was deleted at the end of its retention time.
        ArchiveNotFound: the id's partition is not in the folder.
        ArchiveDamaged: the usage was archived, and cannot be read.
    """
    readable = [status.partition for status in statuses if status.partition]
    if not readable:
        raise ArchiveDamaged("; ".join(status.error for status in statuses))
    # What was never seeded has only a guess of its strides, and no usages.
    readable = [partition for partition in readable if not partition.identity.is_new] or readable
    # Strides of an old backup may claim ids that a child has issued, so a child is asked too. Its
    # number is higher than that of its parent.
    error: UsageExpired | ArchiveDamaged | None = None
    for partition in sorted(readable, key=lambda partition: partition.identity.partition):
        if (seq := partition.identity.find_seq(usage_id)) is None:
            continue
        try:
            if line := _find_in_partition(partition, seq):
                return line
        except (UsageExpired, ArchiveDamaged) as found:
            error = found if error is None or isinstance(found, ArchiveDamaged) else error
    if error:
        raise error
    # The id is of a partition that cannot be read, or of none.
    numbers = {
        (usage_id - 1) % step.stride
        for partition in readable
        for step in partition.identity.strides.steps
    }
    for status in statuses:
        if status.number in numbers and status.problem == "damaged":
            raise ArchiveDamaged(status.error)
    if missing := numbers - {partition.identity.partition for partition in readable}:
        names = " or ".join(map(str, sorted(missing)))
        raise ArchiveNotFound(
            f"id {usage_id} belongs to partition {names}, which is not in the folder: none of its"
            " usages was archived yet, or its volume is another one"
        )
    return None


def _find_in_partition(partition: ArchivePartition, seq: Seq) -> bytes | None:
    if seq < partition.identity.kept_from:
        raise UsageExpired
    reached = high_water.read_mark(partition.folder, partition.identity.archive_id)
    files = partition.list_files().files
    candidates = [file for file in files if file.kind is FileKind.SEGMENT and _covers(file, seq)]
    # Finished segments first: recovery may have died before it deleted the open one.
    candidates += [file for file in files if file.kind is FileKind.OPEN and file.first <= seq]
    damage: ArchiveDamaged | None = None
    for file in candidates:
        try:
            with partition.open_file(file) as opened:
                if line := _read_line(partition, *opened, seq) if opened else None:
                    return line
        except ArchiveDamaged as error:
            damage = error
    if damage:
        raise damage
    covered = any(file.kind in COVERING_KINDS and _covers(file, seq) for file in files)
    lasts = (file.last for file in files if file.kind is not FileKind.DOUBTFUL)
    if not covered and seq <= max([reached, *lasts]):
        raise ArchiveDamaged(f"id {partition.id_of(seq)} was archived, and is in no file")
    return None


def _covers(file: ArchiveFile, seq: Seq) -> bool:
    return file.first <= seq <= file.last


def _read_line(partition: ArchivePartition, fd: int, file: ArchiveFile, seq: Seq) -> bytes | None:
    summary = read_summary(fd, partition.folder, file)
    entry = summary.block_index.find(seq) if summary else None
    if summary and entry and (block := read_indexed_block(fd, summary, entry)):
        return block.line(seq)
    for block in scan_blocks(fd, partition.identity.ids):
        if block.header.first <= seq <= block.header.last:
            return block.line(seq)
    if file.kind is FileKind.OPEN:
        return None
    raise ArchiveDamaged(f"{file.path}: seq {seq} cannot be read")
