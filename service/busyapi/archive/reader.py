"""Reading a segment, finished or open, from its descriptor.

Nothing here holds more than one block in memory, whatever the size of the file.
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
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq

_CHUNK = 1 << 20


class Frame(NamedTuple):
    """A block whose header and checksum hold."""

    offset: int
    block: BlockHeader
    data: bytes

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.block.size

    def lines(self) -> list[bytes]:
        """Return its lines, without newlines.

        Raises:
            ArchiveDamaged: it does not hold the lines that its header promises.
        """
        lines = decompress(self.data).split(b"\n")
        if lines.pop() or len(lines) != self.block.last - self.block.first + 1:
            raise ArchiveDamaged(f"the frame at {self.offset} holds other lines than it should")
        return lines

    def line(self, seq: Seq) -> bytes:
        """Return the line of one of its seqs."""
        return self.lines()[seq - self.block.first]


def read_frame_at(fd: int, offset: int) -> Frame | None:
    """Read the block at an offset; None if no whole and valid one stands there."""
    block = decode_block_header(os.pread(fd, BLOCK_SIZE, offset))
    if block is None:
        return None
    data = os.pread(fd, block.length, offset + BLOCK_SIZE)
    if len(data) != block.length or crc32(data) != block.checksum:
        return None
    return Frame(offset, block, data)


def read_block_at(fd: int, offset: int, name: str) -> Frame:
    """Read the block that must stand at an offset.

    Raises:
        ArchiveDamaged: it does not; the message names the file.
    """
    frame = read_frame_at(fd, offset)
    if frame is None:
        raise ArchiveDamaged(f"{name}: the block at {offset} is damaged")
    return frame


def scan_frames(fd: int) -> Iterator[Frame]:
    """Give every valid block in a file, also those behind damage.

    What lies between them is damage: a block that does not begin where the one before it ends
    stands behind some. What follows the last one is a footer, a torn tail, or nothing.
    """
    # No further than the file reaches now: behind a block that is being written there is nothing
    # yet, and what came later must not make it look like damage.
    end = os.fstat(fd).st_size
    offset: int | None = 0
    while offset is not None:
        frame = read_frame_at(fd, offset)
        if frame and frame.end <= end:
            yield frame
            offset = frame.end
        else:
            offset = _find_next_block(fd, offset + 1)


def _find_next_block(fd: int, offset: int) -> int | None:
    """Search for the next thing that looks like a block header."""
    while chunk := os.pread(fd, _CHUNK, offset):
        at = chunk.find(BLOCK_START)
        if at >= 0:
            return offset + at
        if len(chunk) < len(BLOCK_START):
            return None
        # The next chunk overlaps this one, so that a header across the seam is seen.
        offset += len(chunk) - len(BLOCK_START) + 1
    return None


def read_latest_received(fd: int) -> int | None:
    """Return the latest receivedAt in an open segment, by its block headers; None if it is empty.

    No data is read: a torn last block counts too, for its usages were received all the same.
    """
    latest, offset = None, 0
    while block := decode_block_header(os.pread(fd, BLOCK_SIZE, offset)):
        latest = max(latest or 0, block.latest_ms)
        offset += block.size
    return latest


def read_footer(fd: int) -> Footer | None:
    """Read a file's footer; None if there is none, or a damaged one. SHA-256 is not checked."""
    end = os.fstat(fd).st_size
    size = parse_footer_size(os.pread(fd, TRAILER_SIZE, max(0, end - TRAILER_SIZE)))
    if size is None or size > end:
        return None
    return decode_footer(os.pread(fd, size, end - size), end - size)


def verify_sha256(fd: int, footer: Footer) -> bool:
    """Hash the whole file up to its SHA-256, and compare."""
    sha, offset = hashlib.sha256(), 0
    end = os.fstat(fd).st_size - TRAILER_SIZE
    while offset < end:
        chunk = os.pread(fd, min(_CHUNK, end - offset), offset)
        if not chunk:
            return False
        sha.update(chunk)
        offset += len(chunk)
    return sha.digest() == footer.sha256


def matches_file(footer: Footer, file: ArchiveFile, partition: int, partitions: int) -> bool:
    """Tell whether a footer says what its file's name and partition do."""
    said = (footer.first, footer.last, footer.partition, footer.partitions)
    return said == (file.first, file.last, partition, partitions)
