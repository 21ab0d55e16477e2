"""Reading of a segment, finished or open, from its descriptor.

Each function holds at most one block in memory, whatever the size of the file.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.compression import decompress
from busyapi.archive.format import (
    BLOCK_SIZE,
    BLOCK_START,
    TRAILER_SIZE,
    BlockHeader,
    Footer,
    decode_block_header,
    decode_footer,
    parse_footer_size,
)
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq

_CHUNK_BYTES = 1 << 20


class Block(NamedTuple):
    """A block with a valid header and checksum."""

    offset: int
    header: BlockHeader
    data: bytes

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + self.header.size

    def read(self) -> bytes:
        """Return its lines, each with its newline.

        Raises:
            ArchiveDamaged: the number of lines differs from its header.
        """
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


def read_block_at(fd: int, offset: int) -> Block | None:
    """Read the block at an offset; return None if no complete and valid block is there."""
    header = decode_block_header(os.pread(fd, BLOCK_SIZE, offset))
    if header is None:
        return None
    data = os.pread(fd, header.length, offset + BLOCK_SIZE)
    if len(data) != header.length or crc32(data) != header.checksum:
        return None
    return Block(offset, header, data)


def require_block_at(fd: int, offset: int, name: str) -> Block:
    """Read the block that must be at an offset.

    Raises:
        ArchiveDamaged: it is not there, or damaged; the message names the file.
    """
    block = read_block_at(fd, offset)
    if block is None:
        raise ArchiveDamaged(f"{name}: the block at {offset} is damaged")
    return block


def scan_blocks(fd: int) -> Iterator[Block]:
    """Yield every valid block in a file, including those after damage.

    If a block does not begin where the previous one ends, the bytes between them are damage. The
    last block is followed by a footer, a torn block, or nothing.
    """
    # The end stays fixed: a block that is being written now must not look like damage because a
    # later block follows it.
    end = os.fstat(fd).st_size
    offset: int | None = 0
    while offset is not None:
        block = read_block_at(fd, offset)
        if block and block.end <= end:
            yield block
            offset = block.end
        else:
            offset = _find_next_block(fd, offset + 1)


def _find_next_block(fd: int, offset: int) -> int | None:
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


def read_latest_received(fd: int) -> int | None:
    """Return the latest receivedAt in the block headers of an open segment; None if it is empty.

    Only headers are read. A torn last block counts too, because its usages were received.
    """
    latest, offset = None, 0
    while header := decode_block_header(os.pread(fd, BLOCK_SIZE, offset)):
        latest = max(latest or 0, header.latest_ms)
        offset += header.size
    return latest


def read_footer(fd: int) -> Footer | None:
    """Read a file's footer; return None if it has no valid one. The SHA-256 is not verified."""
    end = os.fstat(fd).st_size
    size = parse_footer_size(os.pread(fd, TRAILER_SIZE, max(0, end - TRAILER_SIZE)))
    if size is None or size > end:
        return None
    return decode_footer(os.pread(fd, size, end - size), end - size)


def verify_sha256(fd: int, footer: Footer) -> bool:
    """Return whether the SHA-256 of the file up to that digest equals it."""
    sha, offset = hashlib.sha256(), 0
    end = os.fstat(fd).st_size - TRAILER_SIZE
    while offset < end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - offset), offset)
        if not chunk:
            return False
        sha.update(chunk)
        offset += len(chunk)
    return sha.digest() == footer.sha256


def matches_file(footer: Footer, file: ArchiveFile, owner: tuple[int, int]) -> bool:
    """Return whether a footer matches its file's name, and the file's partition and stride."""
    stated = (footer.first, footer.last, footer.partition, footer.partitions)
    return stated == (file.first, file.last, *owner)
