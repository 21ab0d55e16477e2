"""What the table lacks of the archive's finished segments, in the order of the seqs.

A partition is read as far as its files leave no doubt: up to the first seq that no finished
segment, gap record or quarantine file covers, or that cannot be read. Such a seq is reported in
each turn and never passed: reading continues when the archive is repaired, or when `accept-loss`
has recorded a gap. What retention deleted before it was taken is reported and recorded.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_holes
from busyapi.archive_cli.ordered_reader import OrderedReader
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.selection import SelectedLines
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveError
from busyapi.ids import MAX_ID, Seq
from busyapi.lake.positions import Position, Positions

Reporter = Callable[[int, str], None]
"""Called with a partition and a problem of it; the other partitions continue."""


class Pending(NamedTuple):
    """The seqs of a partition that are finished and that the table lacks."""

    partition: ArchivePartition
    position: Position
    """Where the table is, with what it will never get."""
    last: Seq
    files: list[ArchiveFile]

    @property
    def seq_count(self) -> int:
        """Return the number of seqs."""
        return self.last - self.position.seq


def find_pending(
    root: Path, only: int | None, positions: Positions, report: Reporter
) -> list[Pending]:
    """Return the partitions that have something to take.

    Raises:
        ArchiveNotFound: the folder holds no archive.
    """
    pending = []
    for status in find_partitions(root, only):
        if status.error:
            report(status.number, status.error)
        if status.partition:
            try:
                part = _find_pending(status.partition, positions.get(status.number), report)
            except (ArchiveError, OSError) as error:
                report(status.number, str(error))
                continue
            if part:
                pending.append(part)
    return pending


def _find_pending(
    partition: ArchivePartition, position: Position | None, report: Reporter
) -> Pending | None:
    own = partition.identity
    position = position or Position(own.archive_id, Seq(0))
    if position.archive_id not in {own.archive_id, own.replaces}:
        report(
            own.partition,
            f"{partition.folder} is another archive than the one from which the table was filled:"
            f" {own.archive_id}, not {position.archive_id}. Name a new table with"
            " BUSYAPI_LAKE_TABLE",
        )
        return None
    files = [file for file in partition.list_files().files if file.kind in COVERING_KINDS]
    highest = max([Seq(own.kept_from - 1), *(file.last for file in files)])
    if highest < position.seq:
        report(
            own.partition,
            f"the table has usages up to id {partition.id_of(position.seq)}, and the archive has"
            f" none above id {partition.id_of(highest) if highest else 0}: was it restored from a"
            " backup?",
        )
        return None
    position = _skip_deleted(position._replace(archive_id=own.archive_id), own, files)
    hole = next(find_holes(files, Seq(position.seq + 1), Seq(MAX_ID)))
    if hole.last < MAX_ID:
        ids = partition.describe_ids(hole)
        report(own.partition, f"{ids}: in no finished segment, but later ids are")
    if hole.first - 1 <= position.seq:
        return None
    return Pending(partition, position, Seq(hole.first - 1), files)


def _skip_deleted(position: Position, own: Identity, files: list[ArchiveFile]) -> Position:
    """Return the position after what retention has deleted, which is missing from now on."""
    if position.seq + 1 >= own.kept_from:
        return position
    gaps = [file for file in files if file.kind is FileKind.GAP]
    deleted = find_holes(gaps, Seq(position.seq + 1), Seq(own.kept_from - 1))
    return position._replace(seq=Seq(own.kept_from - 1), missing=(*position.missing, *deleted))


class Run:
    """The lines of one commit, and how far it comes in each partition."""

    def __init__(self, max_bytes: int, report: Reporter) -> None:
        """Prepare to read at least one block, and no more after `max_bytes` of lines."""
        self.reached: dict[int, Position] = {}
        """The positions after the lines that were read; complete when all are read."""
        self._left = self._left_before = max_bytes
        self._report = report

    def read_lines(self, part: Pending) -> Iterator[SelectedLines]:
        """Yield the lines of a partition."""
        if self._left <= 0:
            return
        self._left_before = self._left
        number = part.partition.identity.partition
        reached = self.reached[number] = part.position
        for lines, last in self._read(part, number):
            # Before the yield: who takes the last lines may not ask for more.
            self.reached[number] = reached._replace(seq=last)
            if lines:
                self._left -= len(lines)
                yield SelectedLines(number, lines)
            if self._left <= 0:
                break

    def undo(self, part: Pending) -> None:
        """Leave the partition that was read last where the table is."""
        self.reached[part.partition.identity.partition] = part.position
        self._left = self._left_before

    def _read(self, part: Pending, number: int) -> Iterator[tuple[bytes, Seq]]:
        """Yield lines with the last seq before which none is left out."""
        problems: list[str] = []
        next_seq = Seq(part.position.seq + 1)
        # Only a seq of a segment has a line. Others need not be in a block.
        others = [file for file in part.files if file.kind is not FileKind.SEGMENT]
        reader = OrderedReader(
            part.partition, _always, problems.append, SeqRange(next_seq, part.last)
        )
        for block in reader.read_blocks():
            before = next(find_holes(others, next_seq, Seq(block.span.first - 1)), None)
            if before or block.span.first < next_seq:
                break
            try:
                lines = block.block.read_span(block.span)
            except ArchiveError as error:
                problems.append(f"{block.path}: {error}")
                break
            next_seq = Seq(block.span.last + 1)
            yield lines, block.span.last
        rest = next(find_holes(others, next_seq, part.last), None)
        end = Seq(rest.first - 1) if rest else part.last
        if end >= next_seq:
            yield b"", end
        if rest:
            ids = part.partition.describe_ids(rest)
            problems.append(f"{ids}: cannot be read, so no later usage of the partition is taken")
        for problem in problems:
            self._report(number, problem)


def _always(_earliest_ms: int, _latest_ms: int) -> bool:
    return True
