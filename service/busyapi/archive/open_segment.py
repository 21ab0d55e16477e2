"""What follows the last whole block of an open segment: is it what a crash leaves?

    nothing, or only zeros                     nothing was written
    the begin of a block or of a footer        torn: the write stopped there
    a block of full length, wrong checksum     doubt: a power cut kept some pages of it and lost
    anything else                                others, or it was whole once and has changed

A process that is killed always leaves one of the first two: the file grows as bytes are copied
into it. Nothing here says whether the block was published: that is for the high-water mark and for
Redis to say.
"""

import os
from typing import NamedTuple

from busyapi.archive.format import (
    BLOCK_SIZE,
    BLOCK_START,
    BlockHeader,
    decode_block_header,
    footer_length,
    footer_start,
)
from busyapi.archive.reader import read_footer, scan_frames
from busyapi.ids import Seq

_CHUNK = 1 << 20


class OpenSegmentScan(NamedTuple):
    """What an open segment holds."""

    blocks: list[BlockHeader]
    """The whole ones, also those behind damage."""
    tail_bytes: int
    """What follows the last of them, but for a whole footer."""
    is_torn: bool
    """These bytes are none, or what a killed writer leaves."""
    next_block: BlockHeader | None
    """What the header of the first block in them says, if it holds."""

    def first_seq(self, named: Seq) -> Seq:
        """Return the smallest seq of a whole block and of the file's name."""
        return min([named, *(each.first for each in self.blocks)])

    def last_seq(self, default: Seq) -> Seq:
        """Return the largest seq of a whole block."""
        return max((each.last for each in self.blocks), default=default)


def scan_open_segment(fd: int) -> OpenSegmentScan:
    """Read an open segment."""
    blocks, end = [], 0
    for frame in scan_frames(fd):
        blocks.append(frame.block)
        end = frame.end
    footer = read_footer(fd)  # there if its writer died before the rename
    if footer and footer.offset == end:
        return OpenSegmentScan(blocks, 0, is_torn=True, next_block=None)
    size = max(0, os.fstat(fd).st_size - end)
    head = os.pread(fd, BLOCK_SIZE, end)
    following = decode_block_header(head)
    if following:
        torn = size < following.size
    else:
        torn = _is_partial_write(head, size, len(blocks)) or _only_zeros(fd, end)
    return OpenSegmentScan(blocks, size, torn, following)


def _is_partial_write(head: bytes, size: int, blocks: int) -> bool:
    """Tell whether bytes are the begin of a block's header, or of the footer, or all of that."""
    start = head[: len(BLOCK_START)]
    if footer_start(blocks).startswith(start):
        return size <= footer_length(blocks)
    return size < BLOCK_SIZE and BLOCK_START.startswith(start)


def _only_zeros(fd: int, offset: int) -> bool:
    while chunk := os.pread(fd, _CHUNK, offset):
        if chunk.strip(b"\0"):
            return False
        offset += len(chunk)
    return True
