"""Scan of an open segment: do the bytes after its last complete block come from a crash?

    nothing, or only zeros                     nothing was written
    the beginning of a block or of a footer    torn: the write stopped there
    a block of full length, wrong checksum     doubtful
    anything else                              doubtful

In format 2 a block is a zstd frame, and an end that does not decompress is not its beginning.

Either of the two doubtful ends has one of two causes: a power cut kept only some pages of a block,
or the block was complete once and has changed. A killed process always leaves one of the first two
ends, because the file grows as bytes are copied into it. The scan cannot determine whether the
block was published: only the high-water mark and Redis can.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from busyapi.archive.format import (
    BLOCK_SIZE,
    BLOCK_START,
    BlockHeader,
    decode_block_header,
    footer_length,
    footer_start,
)
from busyapi.archive.frames import is_partial_frame
from busyapi.archive.reader import Block, read_footer, read_format, scan_blocks
from busyapi.ids import Seq
from busyapi.strides import IdScheme

_CHUNK_BYTES = 1 << 20


class OpenSegmentScan(NamedTuple):
    """The content of an open segment."""

    blocks: list[Block]
    """The complete blocks, including those after damage, without their data."""
    tail_bytes: int
    """The number of bytes after the last complete block; a complete footer does not count."""
    is_explained_by_crash: bool
    """There are no such bytes, or a killed writer left them. Otherwise the end is doubtful."""
    next_header: BlockHeader | None
    """The header at their beginning, if it is valid. Format 2 has none."""

    def first_seq(self, in_name: Seq) -> Seq:
        """Return the smallest of the seqs of the complete blocks and the seq in the file's name."""
        return min([in_name, *(block.header.first for block in self.blocks)])

    def last_seq(self, default: Seq) -> Seq:
        """Return the largest seq of a complete block."""
        return max((block.header.last for block in self.blocks), default=default)


def scan_open_segment(
    fd: int, first: Seq, ids: IdScheme, known: Mapping[int, BlockHeader]
) -> OpenSegmentScan:
    """Scan an open segment whose name begins with a seq. Its index states the `known` frames."""
    blocks = [block.without_data() for block in scan_blocks(fd, ids, known)]
    end = blocks[-1].end if blocks else 0
    if read_format(fd) == 1:
        return _examine_end(fd, blocks, end)
    size = max(0, os.fstat(fd).st_size - end)
    next_seq = Seq(blocks[-1].header.last + 1) if blocks else first
    next_line = b'{"id":%d,"receivedAt":"' % ids.id_of(next_seq)
    is_explained = (
        not size or is_partial_frame(fd, end, end + size, next_line) or _only_zeros(fd, end)
    )
    return OpenSegmentScan(blocks, size, is_explained, next_header=None)


def _examine_end(fd: int, blocks: list[Block], end: int) -> OpenSegmentScan:
    """Examine the end of an open segment of format 1."""
    footer = read_footer(fd)  # present if the writer died before the rename
    if footer and footer.offset == end:
        return OpenSegmentScan(blocks, 0, is_explained_by_crash=True, next_header=None)
    size = max(0, os.fstat(fd).st_size - end)
    head = os.pread(fd, BLOCK_SIZE, end)
    following = decode_block_header(head)
    if following:
        is_explained = size < BLOCK_SIZE + following.length
    else:
        is_explained = _is_partial_write(head, size, len(blocks)) or _only_zeros(fd, end)
    return OpenSegmentScan(blocks, size, is_explained, following)


def _is_partial_write(head: bytes, size: int, block_count: int) -> bool:
    """Return whether the bytes are a block header or a footer, or the beginning of one."""
    start = head[: len(BLOCK_START)]
    if footer_start(block_count).startswith(start):
        return size <= footer_length(block_count)
    return size < BLOCK_SIZE and BLOCK_START.startswith(start)


def _only_zeros(fd: int, offset: int) -> bool:
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        if chunk.strip(b"\0"):
            return False
        offset += len(chunk)
    return True
