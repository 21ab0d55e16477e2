"""Increments of an archive: `export --after-id`, such that all of them together are the archive.

Ids are strided over the partitions, and each partition is archived by a flusher of its own. If one
is behind, ids above its last one are in the archive already, and its own lower ones come later. So
an increment ends at the largest id below which no partition can archive anything more, and leaves
the rest to the next increment.

    ids of p00   1   3   5   7   9  11
    ids of p01   2   4   6                (its flusher is behind: 8 comes later)
                                 └ through = 7; 9 and 11 are held back
"""

from collections.abc import Sequence
from typing import NamedTuple

from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_cursor
from busyapi.archive.reader import scan_blocks
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveError
from busyapi.ids import Seq


class CannotIncrement(ArchiveError):
    """It is unknown which ids are archived."""


class Increment(NamedTuple):
    """The ids that one increment has."""

    after: int
    through: int
    """No partition can archive another usage with an id up to this one."""
    slowest: int
    """The partition that decides it."""
    held_back: int
    """Ids above `through` that other partitions have archived already."""

    def select_seqs(self, partition: ArchivePartition) -> SeqRange:
        """Return the seqs of a partition; the last one is below the first if there is none."""
        return SeqRange(
            Seq(_count_ids(partition, self.after) + 1), Seq(_count_ids(partition, self.through))
        )


def plan_increment(partitions: Sequence[ArchivePartition], after: int) -> Increment:
    """Return the increment after an id, for what is archived now.

    `partitions` are all of them, or one that is exported by itself.
    """
    cursors = {
        partition.identity.partition: (partition, _find_cursor(partition))
        for partition in partitions
    }
    slowest = min(cursors, key=lambda number: _next_id(*cursors[number]))
    partition, cursor = cursors[slowest]
    # An id of its own reads better than the one before its next one, where there is no other.
    last = partition.id_of(cursor) if len(cursors) == 1 else _next_id(partition, cursor) - 1
    through = max(after, last)
    beyond = sum(cursor - _count_ids(other, through) for other, cursor in cursors.values())
    return Increment(after, through, slowest, max(0, beyond))


def _next_id(partition: ArchivePartition, cursor: Seq) -> int:
    return partition.id_of(Seq(cursor + 1))


def _count_ids(partition: ArchivePartition, through: int) -> int:
    """Return the seq of the last id of a partition that is not above an id."""
    return partition.identity.strides.last_seq_up_to(through, partition.identity.partition)


def _find_cursor(partition: ArchivePartition) -> Seq:
    """Return the last seq before the first one that no file holds.

    Usages may still come for a seq in no file: its flusher stopped between two steps, or an
    operator copies it back.
    """
    files = partition.list_files().files
    covering = [file for file in files if file.kind in COVERING_KINDS]
    covering += [
        file._replace(last=last, kind=FileKind.SEGMENT)
        for file in files
        if file.kind is FileKind.OPEN and (last := find_end(partition, file)) >= file.first
    ]
    return find_cursor(sorted(covering), partition.identity.kept_from)


def find_end(partition: ArchivePartition, file: ArchiveFile) -> Seq:
    """Return the last seq of the complete blocks of an open segment."""
    next_seq, offset = file.first, 0
    with partition.open_file(file) as opened:
        if opened:
            for block in scan_blocks(opened[0]):
                if (block.header.first, block.offset) != (next_seq, offset):
                    break
                next_seq, offset = Seq(block.header.last + 1), block.end
    return Seq(next_seq - 1)
