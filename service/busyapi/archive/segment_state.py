"""The state of a finished segment, by its own bytes and by its index or footer.

In format 2 the segment counts, and the index is only a statement about it: a missing index, or one
of another file, does not make a segment damaged.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import paths
from busyapi.archive.format import SegmentIndex, SegmentSummary
from busyapi.archive.frames import add_checksum
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.reader import (
    matches_file,
    read_format,
    read_summary,
    scan_blocks,
    verify_sha256,
)
from busyapi.ids import Seq
from busyapi.strides import IdScheme


class SegmentState(NamedTuple):
    """What was found."""

    is_readable: bool
    """All its usages can be read."""
    problem: str = ""
    """What an operator should know of a readable segment: the rest of a sentence."""
    new_index: SegmentSummary | None = None
    """What its index should state, if it states something else."""


def inspect_segment(fd: int, folder: Path, file: ArchiveFile, ids: IdScheme) -> SegmentState:
    """Read a finished segment completely, and compare it with its index or footer."""
    stated = read_summary(fd, folder, file)
    if stated and not matches_file(stated, file, ids.owner_at(file.first)):
        stated = None
    if stated and verify_sha256(fd, stated):
        return SegmentState(is_readable=True)
    summary = summarize_blocks(fd, file, ids) if read_format(fd) > 1 else None
    if summary is None:
        return SegmentState(is_readable=False)
    if stated and stated.block_index.packed == summary.block_index.packed:
        # The index stays: it proves that a byte has changed, although all blocks can be read.
        return SegmentState(
            is_readable=True,
            problem="has changed: its usages can be read, but its SHA-256 does not match",
        )
    had_index = (folder / paths.index_path(file)).exists()
    problem = "had an index of another file, or a damaged one, which was replaced"
    return SegmentState(True, problem if had_index else "", summary)  # noqa: FBT003 - a field


def summarize_blocks(
    fd: int, file: ArchiveFile, ids: IdScheme, on_lines: Callable[[bytes], None] = lambda _: None
) -> SegmentSummary | None:
    """Read all of a finished segment of format 2, and return what its index must state.

    `on_lines` gets the lines of each block.

    Return None if it is not complete: a byte of it is in no block, or a seq of its name is not in
    it. The blocks follow each other in seqs and in bytes, and have one stride.
    """
    index, sha256 = SegmentIndex(), hashlib.sha256()
    next_seq, end, raw_bytes, owner = file.first, 0, 0, ids.owner_at(file.first)
    checksums = b""
    for block in scan_blocks(fd, ids):
        header = block.header
        if (block.offset, header.first, header.owner) != (end, next_seq, owner):
            return None
        index.add(end, header)
        sha256.update(block.data)
        checksums = add_checksum(checksums, block.data)
        next_seq, end = Seq(header.last + 1), block.end
        raw_bytes += len(block.content)
        on_lines(block.content)
    if (end, next_seq) != (os.fstat(fd).st_size, file.last + 1) or not len(index):
        return None
    count = file.last - file.first + 1
    return SegmentSummary(
        *owner,
        file.first,
        file.last,
        count,
        raw_bytes,
        index,
        end,
        sha256.digest(),
        format=2,
        checksums=checksums,
    )
