"""Reading of a segment, finished or open, from its descriptor.

Each function holds at most one block in memory, whatever the size of the file.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self
from zlib import crc32

from busyapi.archive.compression import decompress
from busyapi.archive.format import (
    BLOCK_SIZE,
    BLOCK_START,
    TRAILER_SIZE,
    BlockHeader,
    IndexEntry,
    SegmentSummary,
    decode_block_header,
    decode_footer,
    parse_footer_size,
)
from busyapi.archive.frames import (
    FRAME_MAGIC,
    LineSummary,
    Summarize,
    find_next_frame,
    find_seqs,
    read_checksums,
    read_frame_at,
)
from busyapi.archive.index_file import read_index
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.strides import IdScheme

_CHUNK_BYTES = 1 << 20


class Block(NamedTuple):
    """A block with a valid checksum. In format 2 it is a frame, and nothing else."""

    offset: int
    header: BlockHeader
    data: bytes
    """The zstd frame."""
    size: int
    """Bytes in the file, in format 1 with the header."""
    content: bytes = b""
    """The lines, if they were decompressed and counted already."""

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + self.size

    def without_data(self) -> Self:
        """Return its position and header only, which take little memory."""
        return self._replace(data=b"", content=b"")

    def read(self) -> bytes:
        """Return its lines, each with its newline.

        Raises:
            ArchiveDamaged: the number of lines differs from its header.
        """
        if self.content:
            return self.content
        lines = decompress(self.data)
        count = self.header.last - self.header.first + 1
        if not lines.endswith(b"\n") or lines.count(b"\n") != count:
            raise ArchiveDamaged(
                f"the block at {self.offset} has other lines than its header states"
            )
        return lines

    def read_span(self, span: SeqRange) -> bytes:
        """Return the lines of these seqs; raise as `read`."""
        lines, header = self.read(), self.header
        if span == (header.first, header.last):
            return lines
        chosen = lines.splitlines(keepends=True)
        return b"".join(chosen[span.first - header.first : span.last - header.first + 1])

    def lines(self) -> list[bytes]:
        """Return its lines, without newlines; raise as `read`."""
        return self.read().split(b"\n")[:-1]

    def line(self, seq: Seq) -> bytes:
        """Return the line of a seq in this block."""
        return self.lines()[seq - self.header.first]


def read_format(fd: int) -> int:
    """Return the format of a segment: that of its first bytes.

    If these are damaged, a header further on decides. A file without any valid byte counts as 2.
    """
    head = os.pread(fd, len(FRAME_MAGIC), 0)
    if head == FRAME_MAGIC:
        return 2
    # Fewer bytes than a magic: a writer of format 1 was killed at its first block.
    if (head and BLOCK_START.startswith(head)) or _find_next_header(fd, 0) is not None:
        return 1
    return 2


def read_block_at(fd: int, offset: int) -> Block | None:
    """Read the block of format 1 at an offset; None if no complete and valid block is there."""
    header = decode_block_header(os.pread(fd, BLOCK_SIZE, offset))
    if header is None:
        return None
    data = os.pread(fd, header.length, offset + BLOCK_SIZE)
    if len(data) != header.length or crc32(data) != header.checksum:
        return None
    return Block(offset, header, data, BLOCK_SIZE + header.length)


def read_frame_block(
    fd: int, offset: int, end: int, ids: IdScheme, summarize: Summarize | None = None
) -> Block | None:
    """Read the block of format 2 at an offset; None if no complete and valid block is there."""
    frame = read_frame_at(fd, offset, end, ids, summarize)
    return (
        Block(offset, frame.header, frame.data, len(frame.data), frame.content) if frame else None
    )


def read_indexed_block(fd: int, summary: SegmentSummary, entry: IndexEntry) -> Block | None:
    """Read the block of an entry; None if it is damaged, or is not what the entry states.

    An index is never trusted: the block itself must hold the seqs. Only the times are taken from
    it: by them, readers have chosen the block already.
    """

    def summarize(content: bytes, ids: IdScheme) -> LineSummary | None:
        seqs = find_seqs(content, ids)
        return LineSummary(*seqs, entry.earliest_ms, entry.latest_ms) if seqs else None

    if summary.format == 1:
        block = read_block_at(fd, entry.offset)
    else:
        ids = IdScheme.fixed(summary.partition, summary.stride)
        block = read_frame_block(fd, entry.offset, summary.end_of(entry), ids, summarize)
    if block and (block.header.first, block.header.last) == (entry.first, entry.last):
        return block
    return None


def read_block_again(fd: int, block: Block, name: str) -> Block:
    """Read a block that was read before.

    Raises:
        ArchiveDamaged: it has changed; the message names the file.
    """
    again: Block | None = None
    if block.size == block.header.length:  # format 2: the scan has read and decompressed it
        data = os.pread(fd, block.size, block.offset)
        if len(data) == block.size and crc32(data) == block.header.checksum:
            again = block._replace(data=data)
    else:
        again = read_block_at(fd, block.offset)
    if again is None or again.header != block.header:
        raise ArchiveDamaged(f"{name}: the block at {block.offset} is damaged")
    return again


def scan_blocks(
    fd: int,
    ids: IdScheme,
    known: Mapping[int, BlockHeader] = MappingProxyType({}),
    summarize: Summarize | None = None,
) -> Iterator[Block]:
    """Yield every valid block in a file, including those after damage.

    If a block does not begin where the previous one ends, the bytes between them are damage. The
    last block is followed by a footer (format 1), a torn block, or nothing. `ids` says which lines
    belong to the file; blocks of format 1 state it themselves. A frame at an offset of `known` that
    has the checksum stated there is not decompressed. `summarize` decides whether a frame has lines
    of the file, instead of `summarize_lines`.
    """
    # The end stays fixed: a block that is being written now must not look like damage because a
    # later block follows it.
    end = os.fstat(fd).st_size
    is_framed = read_format(fd) > 1
    offset: int | None = 0
    while offset is not None and offset < end:
        if is_framed:
            block = _read_known_frame(fd, offset, known)
            block = block or read_frame_block(fd, offset, end, ids, summarize)
        else:
            block = read_block_at(fd, offset)
        if block and block.end <= end:
            yield block
            offset = block.end
        else:
            find = find_next_frame if is_framed else _find_next_header
            offset = find(fd, offset + 1)


def _read_known_frame(fd: int, offset: int, known: Mapping[int, BlockHeader]) -> Block | None:
    if (header := known.get(offset)) is None:
        return None
    data = os.pread(fd, header.length, offset)
    is_same = len(data) == header.length and crc32(data) == header.checksum
    return Block(offset, header, data, len(data)) if is_same else None


def scan_headers(fd: int) -> Iterator[Block]:
    """Yield every valid block of format 1 in a file, whatever its first bytes are."""
    offset: int | None = 0
    while offset is not None:
        if block := read_block_at(fd, offset):
            yield block
        offset = block.end if block else _find_next_header(fd, offset + 1)


def _find_next_header(fd: int, offset: int) -> int | None:
    """Find the next offset at which a block header may begin."""
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        at = chunk.find(BLOCK_START)
        if at >= 0:
            return offset + at
        if len(chunk) < len(BLOCK_START):
            return None
        # The next chunk overlaps this one, to find a header that crosses the boundary.
        offset += len(chunk) - len(BLOCK_START) + 1
    return None


def read_latest_received(fd: int, ids: IdScheme) -> int | None:
    """Return the latest receivedAt in the blocks of a segment; None if it has no block.

    Of format 1 only headers are read. A torn last block counts too there, because its usages were
    received.
    """
    if read_format(fd) > 1:
        return max((block.header.latest_ms for block in scan_blocks(fd, ids)), default=None)
    latest, offset = None, 0
    while header := decode_block_header(os.pread(fd, BLOCK_SIZE, offset)):
        latest = max(latest or 0, header.latest_ms)
        offset += BLOCK_SIZE + header.length
    return latest


def read_footer(fd: int) -> SegmentSummary | None:
    """Read the footer of a file of format 1; None without a valid one.

    The SHA-256 is not verified.
    """
    end = os.fstat(fd).st_size
    size = parse_footer_size(os.pread(fd, TRAILER_SIZE, max(0, end - TRAILER_SIZE)))
    if size is None or size > end:
        return None
    return decode_footer(os.pread(fd, size, end - size), end - size)


def read_summary(fd: int, folder: Path, file: ArchiveFile) -> SegmentSummary | None:
    """Read the summary of a finished segment: its footer, or the index next to it.

    Return None if there is none, or if it is damaged or of another file.
    """
    if read_format(fd) == 1:
        return read_footer(fd)
    summary = read_index(folder, file)
    return summary if summary and _describes(fd, summary) else None


def _describes(fd: int, summary: SegmentSummary) -> bool:
    """Return whether an index is that of this file.

    One of another archive may have the same name, size and times. By it, a search would skip frames
    in which it should look.
    """
    ends = summary.end_of(summary.block_index[0]), summary.offset
    return summary.offset == os.fstat(fd).st_size and read_checksums(fd, *ends) == summary.checksums


def verify_sha256(fd: int, summary: SegmentSummary) -> bool:
    """Return whether the SHA-256 of the file, or of its part up to that digest, equals it."""
    sha, offset = hashlib.sha256(), 0
    end = os.fstat(fd).st_size - (TRAILER_SIZE if summary.format == 1 else 0)
    while offset < end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - offset), offset)
        if not chunk:
            return False
        sha.update(chunk)
        offset += len(chunk)
    return sha.digest() == summary.sha256


def matches_file(summary: SegmentSummary, file: ArchiveFile, owner: tuple[int, int]) -> bool:
    """Return whether a summary matches its file's name, and the file's partition and stride."""
    stated = (summary.first, summary.last, summary.partition, summary.stride)
    return stated == (file.first, file.last, *owner)
