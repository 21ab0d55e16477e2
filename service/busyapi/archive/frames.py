"""The zstd frames of a segment of format 2, which hold lines and nothing else.

busyapi adds no header to a frame. Its length follows from the headers of its zstd blocks, zstd's
checksum protects its content, and its lines say which seqs it holds and when they were received.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.compression import decompress, decompress_beginning, parse_frame_header
from busyapi.archive.format import BlockHeader
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.strides import IdScheme

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of every frame. 0xB5 cannot follow 0x28 in UTF-8, so no line contains them."""

MAX_CONTENT_BYTES = 1 << 28
"""Far more than any block has. A frame that states more is damage, and must not take memory."""
_MAX_HEADER_BYTES = 18
"""The longest header of a frame. A frame with a line is longer."""
_ZSTD_BLOCK_HEADER_BYTES = 3
_MAX_ZSTD_BLOCK_BYTES = 1 << 17
_CHECKSUM_BYTES = 4
_RLE, _RESERVED = 1, 3
_CHUNK_BYTES = 1 << 20

_LINE = re.compile(rb'\{"id":(\d{1,16}),"receivedAt":"([^"]{24})","usage":')
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ID_OFFSET, _TIME_OFFSET = len(b'{"id":'), len(b'{"id":,"receivedAt":"')
_TIME_BYTES = 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Frame(NamedTuple):
    """A frame with a valid checksum, and what its lines state."""

    header: BlockHeader
    data: bytes
    content: bytes


class _Extent(NamedTuple):
    """The length of a frame, as far as its structure is known."""

    size: int
    is_complete: bool
    """The file has all of it. Otherwise the frame is longer than `size`."""


class LineSummary(NamedTuple):
    """What the lines of a frame state."""

    first: Seq
    last: Seq
    earliest_ms: int
    latest_ms: int


Summarize = Callable[[bytes, IdScheme], LineSummary | None]
"""Returns what the lines of a frame state; None if they are not lines of this partition."""


def read_frame_at(
    fd: int, offset: int, end: int, ids: IdScheme, summarize: Summarize | None = None
) -> Frame | None:
    """Read the frame at an offset, up to `end`; None if no complete and valid one is there.

    A frame with anything but consecutive lines of this partition is not valid: `summarize`, or
    `summarize_lines`, decides.
    """
    try:
        extent = _measure(fd, offset, end)
        if not extent.is_complete:
            return None
        data = os.pread(fd, extent.size, offset)
        if len(data) != extent.size:  # the file was truncated meanwhile
            return None
        content = decompress(data)
    except ArchiveDamaged:
        return None
    lines = (summarize or summarize_lines)(content, ids)
    if lines is None:
        return None
    header = BlockHeader(
        *ids.owner_at(lines.first),
        lines.first,
        lines.last,
        lines.earliest_ms,
        lines.latest_ms,
        len(data),
        crc32(data),
    )
    return Frame(header, data, content)


def is_partial_frame(fd: int, offset: int, end: int, next_line: bytes) -> bool:
    """Return whether the bytes from an offset to the end are the beginning of a frame.

    A killed process leaves such an end. `next_line` is the beginning of the frame's first line.
    Zeros within the frame, which a power cut may leave, are not the beginning of one: they do not
    decompress, or the frame has its full length.
    """
    try:
        if _measure(fd, offset, end).is_complete:
            return False
        content = decompress_beginning(os.pread(fd, end - offset, offset))
    except ArchiveDamaged:
        return False
    return content.startswith(next_line) or next_line.startswith(content)


def add_checksum(checksums: bytes, frame: bytes) -> bytes:
    """Return the checksums of the first and the last frame, after one more frame."""
    last = frame[-_CHECKSUM_BYTES:]
    return (checksums[:_CHECKSUM_BYTES] or last) + last


def read_checksums(fd: int, first_end: int, last_end: int) -> bytes:
    """Read the checksums of the frames that end at these offsets."""
    return b"".join(
        os.pread(fd, _CHECKSUM_BYTES, max(0, end - _CHECKSUM_BYTES))
        for end in (first_end, last_end)
    )


def find_next_frame(fd: int, offset: int) -> int | None:
    """Find the next offset at which a frame may begin."""
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        at = chunk.find(FRAME_MAGIC)
        if at >= 0:
            return offset + at
        if len(chunk) < len(FRAME_MAGIC):
            return None
        # The next chunk overlaps this one, to find a magic that crosses the boundary.
        offset += len(chunk) - len(FRAME_MAGIC) + 1
    return None


def summarize_lines(content: bytes, ids: IdScheme) -> LineSummary | None:
    """Return what the lines of a frame state; None if they are not consecutive lines."""
    seqs = find_seqs(content, ids)
    return summarize_times(seqs, _received_times(content.split(b"\n")[:-1])) if seqs else None


def summarize_times(seqs: SeqRange, times: set[bytes]) -> LineSummary | None:
    """Return the summary of lines with these seqs and times; None if one is not a time."""
    if not times or not all(map(_TIME.fullmatch, times)):
        return None
    try:
        earliest, latest = _parse_ms(min(times)), _parse_ms(max(times))
        return LineSummary(*seqs, earliest, latest) if earliest >= 0 else None
    except ValueError:  # the form of a time, but no time
        return None


def find_seqs(content: bytes, ids: IdScheme) -> SeqRange | None:
    """Return the seqs of a frame's lines by the first and the last of them and their number.

    Return None if they are not lines of this partition.
    """
    seqs = find_ends(content, ids)
    return seqs if seqs and seqs.last - seqs.first + 1 == content.count(b"\n") else None


def find_ends(content: bytes, ids: IdScheme) -> SeqRange | None:
    """Return the seqs of the first and the last line, which have one stride.

    Return None if they are not lines of this partition.
    """
    if not content.endswith(b"\n"):
        return None
    ends = [_LINE.match(content, at) for at in (0, content.rfind(b"\n", 0, -1) + 1)]
    first, last = (ids.find_seq(int(end[1])) if end else None for end in ends)
    if first is None or last is None:
        return None
    return SeqRange(first, last) if ids.owner_at(first) == ids.owner_at(last) else None


def _received_times(lines: Sequence[bytes]) -> set[bytes]:
    """Return the different times in these lines; an empty set if a line has none."""
    widths = [line.find(b",", 0, 32) - _ID_OFFSET for line in (lines[0], lines[-1])]
    if widths[0] == widths[1]:
        # Ids of the same length: each time is at the same place, and a wrong one has another form.
        start = _TIME_OFFSET + widths[0]
        return {line[start : start + _TIME_BYTES] for line in lines}
    matches = [_LINE.match(line) for line in lines]
    return {match[2] for match in matches if match} if all(matches) else set()


def _parse_ms(time: bytes) -> int:
    return (datetime.fromisoformat(time.decode()) - _EPOCH) // timedelta(milliseconds=1)


def _measure(fd: int, offset: int, end: int) -> _Extent:
    """Find the length of a frame from the headers of its zstd blocks.

    Raises:
        ArchiveDamaged: no frame of this archive begins here.
    """
    head = os.pread(fd, min(_MAX_HEADER_BYTES, end - offset), offset)
    if not head.startswith(FRAME_MAGIC[: len(head)]):
        raise ArchiveDamaged(f"no zstd frame begins at {offset}")
    if len(head) < _MAX_HEADER_BYTES:
        return _Extent(len(head), is_complete=False)
    stated = parse_frame_header(head)
    is_own = stated.has_checksum and not stated.needs_dictionary
    if not is_own or not 0 < stated.content_bytes <= MAX_CONTENT_BYTES:
        raise ArchiveDamaged(f"the frame at {offset} is not one of an archive")
    at, is_last = offset + stated.header_bytes, False
    while not is_last and at + _ZSTD_BLOCK_HEADER_BYTES <= end:
        fields = int.from_bytes(os.pread(fd, _ZSTD_BLOCK_HEADER_BYTES, at), "little")
        is_last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
        if kind == _RESERVED or size > _MAX_ZSTD_BLOCK_BYTES or (size == 0 and not is_last):
            raise ArchiveDamaged(f"the frame at {offset} has an invalid block")
        at += _ZSTD_BLOCK_HEADER_BYTES + (1 if kind == _RLE else size)
    at += _CHECKSUM_BYTES
    return _Extent(at - offset, is_complete=is_last and at <= end)
