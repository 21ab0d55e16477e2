"""Increments of an archive: `export --after-id`, such that all of them together are the archive.

Each partition is archived by a flusher of its own, and its ids are not in step with those of the
others: it may be behind, or get no posts for a week. So there is no id below which everything is
archived, and an increment continues in each partition after the last id that it had of it.

    archived in p00   1   3   5   7   9  11
    archived in p01   2   4   6              the increment has all of them
                                             and ends at 0:11,1:6
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from busyapi.archive import high_water
from busyapi.archive.identity import read_identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_cursor, find_holes
from busyapi.archive.reader import scan_blocks
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveError
from busyapi.ids import MAX_ID, Seq

Position = Mapping[int, int]
"""The last exported id of each partition by its number. Nothing of the others was exported."""


class CannotIncrement(ArchiveError):
    """It is unknown which ids are archived, or which were exported."""


class Increment(NamedTuple):
    """The usages that one increment has."""

    after: Position
    through: Position
    seqs: Mapping[int, SeqRange]
    """The seqs of each partition. If it has no new ones, the last is below the first."""
    missing: Sequence[str] = ()
    """Which ids are in no file, although later ones were archived. The increment ends there."""

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was archived since the one before."""
        return all(span.last < span.first for span in self.seqs.values())


def parse_position(text: str) -> Position:
    """Parse what `format_position` returns.

    Raises:
        argparse.ArgumentTypeError: the text has another form.
    """
    if text == "0":
        return {}
    pairs = [re.fullmatch(r"(\d{1,5}):(\d{1,19})", pair, re.ASCII) for pair in text.split(",")]
    position = {int(pair[1]): int(pair[2]) for pair in pairs if pair}
    if len(position) < len(pairs) or max(position.values()) > MAX_ID:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a position such as 0:22954,1:22950; begin with 0"
        )
    return position


def format_position(position: Position) -> str:
    """Return a position as text, such as `0:22954,1:22950`; 0 if nothing was exported."""
    return ",".join(f"{partition}:{last}" for partition, last in sorted(position.items())) or "0"


def plan_increment(partitions: Sequence[ArchivePartition], after: Position) -> Increment:
    """Return the increment after a position, for what is archived now.

    `partitions` are all of them, or one that is exported by itself.

    Raises:
        CannotIncrement: the position is not one of this archive.
    """
    through, seqs, missing = dict(after), {}, []
    for partition in partitions:
        number = partition.identity.partition
        # Read the mark first: what it covers was on disk before the files are listed.
        reached = high_water.read_mark(partition.folder, partition.identity.archive_id)
        last, covering = _find_seq(partition, after.get(number)), _list_covering(partition)
        # Read again, after the files. What retention has deleted meanwhile is not missing, and the
        # flusher may have widened the stride, before the seqs of the wider one.
        current = read_identity(partition.folder) or partition.identity
        # Usages may still come for a seq in no file: its flusher stopped between two steps, or an
        # operator copies it back.
        cursor = find_cursor(covering, current.kept_from)
        highest = max([reached, *(file.last for file in covering)])
        if hole := next(find_holes(covering, Seq(cursor + 1), highest), None):
            missing.append(partition.describe_ids(hole))
        seqs[number] = SeqRange(Seq(last + 1), cursor)
        if cursor > last:
            through[number] = current.id_of(cursor)
    if unknown := sorted(after.keys() - seqs.keys()):
        raise CannotIncrement(
            f"--after-id names partition {unknown[0]}, which is not exported: mount its volume, or"
            f" leave out {unknown[0]}:{after[unknown[0]]}"
        )
    return Increment(after, through, seqs, missing)


def _find_seq(partition: ArchivePartition, usage_id: int | None) -> Seq:
    if usage_id is None:
        return Seq(partition.identity.strides.start - 1)
    seq = partition.identity.find_seq(usage_id)
    if seq is None:
        raise CannotIncrement(
            f"--after-id: {usage_id} is not an id of partition {partition.identity.partition};"
            " give what the last export printed, or 0 to begin"
        )
    return seq


def _list_covering(partition: ArchivePartition) -> list[ArchiveFile]:
    """Return the files that hold seqs, in order; an open segment ends at its complete blocks."""
    files = partition.list_files().files
    covering = [file for file in files if file.kind in COVERING_KINDS]
    covering += [
        file._replace(kind=FileKind.SEGMENT, last=last)
        for file in files
        if file.kind is FileKind.OPEN and (last := find_end(partition, file)) >= file.first
    ]
    return sorted(covering)


def find_end(partition: ArchivePartition, file: ArchiveFile) -> Seq:
    """Return the last seq of the complete blocks of an open segment."""
    next_seq, offset = file.first, 0
    with partition.open_file(file) as opened:
        if opened:
            for block in scan_blocks(opened[0], partition.identity.ids):
                if (block.header.first, block.offset) != (next_seq, offset):
                    break
                next_seq, offset = Seq(block.header.last + 1), block.end
    return Seq(next_seq - 1)
