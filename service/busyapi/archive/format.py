"""The lines and blocks of a segment, and the bytes of format 1. FORMAT.md describes them.

    format 1    block header | zstd frame | block header | zstd frame | … | footer
    format 2    zstd frame | zstd frame | …         and an index in a file of its own

Headers and footer are skippable frames, which not every zstd reader skips. `frames` and
`index_file` have the bytes of format 2.
"""

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from busyapi.ids import Seq, make_usage_id
from busyapi.usage_json import format_received_at

MAGIC = b"busyapi\x01"
"""The start of the content of every skippable frame; the last byte is the format's version."""

_BLOCK_MAGIC = 0x184D2A5B
_FOOTER_MAGIC = 0x184D2A5F
_PREFIX = 8
"""Bytes of a skippable frame before its content: its magic and length."""

_BLOCK = struct.Struct("<II8sIIQQQQII")
_CRC = struct.Struct("<I")
BLOCK_SIZE = _BLOCK.size + _CRC.size
BLOCK_START = struct.pack("<II8s", _BLOCK_MAGIC, BLOCK_SIZE - _PREFIX, MAGIC)
"""The first bytes of every block header, by which a reader finds a block after damage."""

_FOOTER = struct.Struct("<II8sIIQQQQI")
_TRAILER = struct.Struct("<I8s")
SHA_SIZE = 32
TRAILER_SIZE = SHA_SIZE + _TRAILER.size
"""The end of a finished segment: SHA-256 of all bytes before it, the footer's length, MAGIC."""

_ENTRY = struct.Struct("<QQQQQ")
_ENTRY_NUMBERS = 5
_LINES_PER_PIECE = 512


class UsageBatch(NamedTuple):
    """Usages with consecutive seqs, received together."""

    first: Seq
    last: Seq
    received_ms: int
    usages: bytes
    """Canonical JSON with a newline between two usages, as the stream has them. A stamped usage has
    its stamp behind it, as the members that follow `usage` in a line."""


class BlockHeader(NamedTuple):
    """A description of a zstd frame. In format 1 it is stored before the frame."""

    partition: int
    stride: int
    first: Seq
    last: Seq
    earliest_ms: int
    latest_ms: int
    length: int
    """Bytes of the zstd frame."""
    checksum: int
    """CRC-32 of the zstd frame."""

    @property
    def owner(self) -> tuple[int, int]:
        """The partition and the stride, which `IdScheme.owner_at` returns for its seqs."""
        return self.partition, self.stride


class IndexEntry(NamedTuple):
    """The offset of a block in its segment, and what it holds."""

    position: int
    """The number of the block in its segment, from 0."""
    offset: int
    first: Seq
    last: Seq
    earliest_ms: int
    latest_ms: int


class SegmentIndex:
    """The entries of a segment, kept as bytes: a long segment has tens of thousands."""

    def __init__(self, packed: bytes = b"") -> None:
        self.packed = bytearray(packed)

    def __len__(self) -> int:
        return len(self.packed) // _ENTRY.size

    def __getitem__(self, at: int) -> IndexEntry:
        offset, first, last, earliest, latest = _ENTRY.unpack_from(self.packed, at * _ENTRY.size)
        return IndexEntry(at, offset, Seq(first), Seq(last), earliest, latest)

    def __iter__(self) -> Iterator[IndexEntry]:
        return (self[at] for at in range(len(self)))

    def add(self, offset: int, header: BlockHeader) -> None:
        """Add an entry for the block at this offset."""
        self.packed += _ENTRY.pack(
            offset, header.first, header.last, header.earliest_ms, header.latest_ms
        )

    def find(self, seq: Seq) -> IndexEntry | None:
        """Return the entry of the block that holds a seq; None if no block holds it."""
        at = self._find_position(seq)
        return self[at] if at >= 0 and seq <= self[at].last else None

    def find_times(self) -> tuple[int, int]:
        """Return the earliest and the latest receivedAt, or zeros."""
        numbers = array("Q", bytes(self.packed))
        if sys.byteorder == "big":
            numbers.byteswap()
        earliest, latest = numbers[3::_ENTRY_NUMBERS], numbers[4::_ENTRY_NUMBERS]
        return min(earliest, default=0), max(latest, default=0)

    def overlapping(self, first: Seq, last: Seq) -> Iterator[IndexEntry]:
        """Yield the entries of the blocks that hold any of these seqs."""
        for at in range(max(0, self._find_position(first)), len(self)):
            entry = self[at]
            if entry.first > last:
                return
            if entry.last >= first:
                yield entry

    def _find_position(self, seq: Seq) -> int:
        """Return the position of the last block that begins with this seq or before; or -1."""
        return bisect_right(range(len(self)), seq, key=lambda position: self[position].first) - 1


class SegmentSummary(NamedTuple):
    """What a finished segment holds: the footer of format 1, the index file of format 2."""

    partition: int
    stride: int
    first: Seq
    last: Seq
    usages: int
    raw_bytes: int
    """Bytes of all lines, uncompressed."""
    block_index: SegmentIndex
    offset: int
    """The end of the last block. In format 1 the footer is there, in format 2 the file ends."""
    sha256: bytes
    """Of the file up to the digest itself; in format 2 of the whole file."""
    format: int = 1
    checksums: bytes = b""
    """zstd's checksums of the first and the last frame, in format 2: they identify the file."""

    def end_of(self, entry: IndexEntry) -> int:
        """Return the end of a block."""
        following = entry.position + 1
        if following < len(self.block_index):
            return self.block_index[following].offset
        return self.offset


def render_lines(batches: Sequence[UsageBatch], partition: int, stride: int) -> Iterator[bytes]:
    """Yield the lines of batches whose seqs follow each other, in pieces.

    One `%` renders a whole piece, in half of the time that one for each line takes. A piece of all
    lines would need new memory from the kernel for each block, which takes longer than that.

    Raises:
        ValueError: a batch has more or fewer usages than seqs.
    """
    templates: list[bytes] = []
    ids: list[int] = []
    usages: list[bytes] = []
    for batch in batches:
        received_at = format_received_at(batch.received_ms).encode()
        count = batch.last - batch.first + 1
        templates += [b'{"id":%%d,"receivedAt":"%b","usage":%%b}\n' % received_at] * count
        start = make_usage_id(batch.first, partition, stride)
        ids += range(start, start + count * stride, stride)
        usages += batch.usages.split(b"\n")
        if len(usages) != len(ids):
            raise ValueError(f"the batch of seqs {batch.first} to {batch.last} is incomplete")
        if len(ids) >= _LINES_PER_PIECE:
            yield from _render_pieces(templates, ids, usages)
            templates, ids, usages = [], [], []
    yield from _render_pieces(templates, ids, usages)


def _render_pieces(templates: list[bytes], ids: list[int], usages: list[bytes]) -> Iterator[bytes]:
    for at in range(0, len(ids), _LINES_PER_PIECE):
        piece = slice(at, at + _LINES_PER_PIECE)
        values: list[int | bytes] = [0] * (2 * len(ids[piece]))
        values[::2], values[1::2] = ids[piece], usages[piece]
        yield b"".join(templates[piece]) % tuple(values)


def encode_block_header(header: BlockHeader) -> bytes:
    """Encode a block header."""
    head = _BLOCK.pack(_BLOCK_MAGIC, BLOCK_SIZE - _PREFIX, MAGIC, *header)
    return head + _CRC.pack(crc32(head))


def decode_block_header(raw: bytes) -> BlockHeader | None:
    """Decode a block header; return None if the bytes are not a valid one."""
    if len(raw) < BLOCK_SIZE or not raw.startswith(BLOCK_START):
        return None
    if _CRC.unpack_from(raw, _BLOCK.size)[0] != crc32(raw[: _BLOCK.size]):
        return None
    return BlockHeader(*_BLOCK.unpack_from(raw)[3:])


def footer_start(block_count: int) -> bytes:
    """Return the first bytes of a footer for this many blocks."""
    return struct.pack("<II8s", _FOOTER_MAGIC, footer_length(block_count) - _PREFIX, MAGIC)


def footer_length(block_count: int) -> int:
    """Return the length of a footer for this many blocks."""
    return _FOOTER.size + block_count * _ENTRY.size + _CRC.size + TRAILER_SIZE


def encode_footer(footer: SegmentSummary) -> bytes:
    """Encode a footer up to its SHA-256, which covers these bytes too."""
    block_count = len(footer.block_index)
    size = footer_length(block_count) - _PREFIX
    head = _FOOTER.pack(_FOOTER_MAGIC, size, MAGIC, *footer[:6], block_count)
    body = head + footer.block_index.packed
    return body + _CRC.pack(crc32(body))


def encode_trailer(sha256: bytes, footer_size: int) -> bytes:
    """Encode the trailer that follows the footer's body. `footer_size` includes the trailer."""
    return sha256 + _TRAILER.pack(footer_size, MAGIC)


def parse_footer_size(tail: bytes) -> int | None:
    """Return the footer's length from a file's last TRAILER_SIZE bytes; None without a footer."""
    if len(tail) < TRAILER_SIZE:
        return None
    size, magic = _TRAILER.unpack_from(tail, SHA_SIZE)
    return int(size) if magic == MAGIC else None


def decode_footer(raw: bytes, offset: int) -> SegmentSummary | None:
    """Decode a footer that was read at this offset; return None if it is not a valid one."""
    body = len(raw) - TRAILER_SIZE - _CRC.size
    if body < _FOOTER.size or _CRC.unpack_from(raw, body)[0] != crc32(raw[:body]):
        return None
    frame, size, magic, p, stride, first, last, usages, lines, entries = _FOOTER.unpack_from(raw)
    index = SegmentIndex(raw[_FOOTER.size : body])
    if (frame, size + _PREFIX, magic) != (_FOOTER_MAGIC, len(raw), MAGIC) or len(index) != entries:
        return None
    sha256 = raw[body + _CRC.size :][:SHA_SIZE]
    return SegmentSummary(p, stride, first, last, usages, lines, index, offset, sha256)
