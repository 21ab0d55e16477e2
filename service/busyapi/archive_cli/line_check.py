"""The check of all lines of a block at once, for `archive verify`.

    {"id":32001,"receivedAt":"2026-11-01T01:25:40.800Z","usage":{"patientId":"048840",…}}
    └── START ┘└─────────────────────── MIDDLE ────────────────────┘└────── the rest ─────┘

The lines of a block hardly differ in what comes before their usages, so arrays compare that. Then
it is replaced by a short beginning of the same length, and a parser that keeps nothing reads the
rest. What this check accepts is valid, but as in `read_heads`, a number may be beyond a double.
What it does not know, such as ids that get a digit more within a block, is checked line by line:
see `segment_check`.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busyapi.archive.archived_usage import count_objects, count_stamped_objects
from busyapi.archive.frames import find_ends
from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.line_arrays import Bytes, Places, Windows, slide
from busyapi.stamp import count_stamped_lines
from busyapi.strides import IdScheme

_BEGINNING = re.compile(
    rb'\{"id":\0+,"receivedAt":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\0{3}Z","usage":\{\0*'
)
"""The beginning of a line, with zeros for its id, for its milliseconds and behind it."""
_ID_OFFSET = len('{"id":')
_POINT_OFFSET = len(',"receivedAt":"2026-11-23T19:12:00')
_MIDDLE_BYTES = len(',"receivedAt":"2026-11-23T19:12:00.123Z","usage":{')
_MIN_REST_BYTES = len('"":1}}')
_WORD_BYTES, _WORD_BITS = 8, 64
_TEXT_DIGITS, _TEXTS_COUNT = 4, 10_000
_TEXTS = np.frombuffer(b"".join(b"%04d" % n for n in range(_TEXTS_COUNT)), np.uint32)
"""The text of each number of four digits."""
_ZERO_MS, _POINT_MASK, _MAX_DIGIT = int.from_bytes(b".000"), 0xFF000000, 9
_NEWLINE, _BRACE, _SPACE = b"\n} "
_MAX_ASCII = 127
_MEMORY_UNIT = 1 << 20


class CheckedLines(NamedTuple):
    """What valid lines state."""

    seqs: SeqRange
    times: set[bytes]
    """The first and the last receivedAt of each second. They have the form of a time."""


def check_lines(content: bytes, ids: IdScheme) -> CheckedLines | None:
    """Return what the lines of a block state; None if this check cannot prove that all are valid.

    Each line then is an object with an id, a receivedAt, a usage and at most a valid stamp, and
    nothing else; and the ids are those of consecutive seqs.
    """
    seqs = find_ends(content, ids)
    if seqs is None:
        return None
    ends = _find_newlines(content)
    if ends is None or len(ends) != seqs.last - seqs.first + 1:
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    first, last = ids.id_of(seqs.first), ids.id_of(seqs.last)
    digits = len(str(first))
    width = _ID_OFFSET + digits + _MIDDLE_BYTES
    # Of shorter lines, the arrays below would read and change bytes of the next line.
    shortest = int((ends - starts).min())
    if len(str(last)) != digits or shortest < width + _MIN_REST_BYTES:
        return None
    heads = slide(content, -(-width // _WORD_BYTES) * _WORD_BYTES)[starts]
    _clear_ids(heads, digits, np.arange(len(heads)) * ids.owner_at(seqs.first)[1] + first)
    _clear_rest(heads, width)
    times = _read_times(heads, width)
    if times is None or not _are_objects(content, starts, ends, width):
        return None
    return CheckedLines(seqs, times)


def _find_newlines(content: bytes) -> Places | None:
    """Return where all newlines are; None if two are too close to each other for a line."""
    # A search for bytes takes twice as long as one for words of bits, of which few are not 0.
    bits = np.packbits(np.frombuffer(content, np.uint8) == _NEWLINE, bitorder="little")
    words = np.zeros(-(-len(bits) // _WORD_BYTES), "<u8")
    words.view(np.uint8)[: len(bits)] = bits
    offsets = np.flatnonzero(words != 0)
    chosen = words[offsets]
    below = chosen - 1
    if (chosen & below).any():
        return None
    ends: Places = offsets * _WORD_BITS + np.bitwise_count(below)
    return ends


def _column(heads: Windows, dtype: str, offset: int) -> NDArray[Any]:
    """Return a column of beginnings of lines, which shares their memory."""
    return np.ndarray(len(heads), dtype, heads.data, offset, heads.strides)


def _clear_ids(heads: Windows, digits: int, expected: Places) -> None:
    """Replace the ids in beginnings of lines by zeros if they have these values."""
    start = _ID_OFFSET + digits - _TEXT_DIGITS
    for offset in range(start, _ID_OFFSET - _TEXT_DIGITS, -_TEXT_DIGITS):
        upper = expected // _TEXTS_COUNT
        texts = _TEXTS.take(expected - upper * _TEXTS_COUNT)
        if offset < _ID_OFFSET:
            mask = bytes(_ID_OFFSET - offset).ljust(_TEXT_DIGITS, b"\xff")
            texts &= np.frombuffer(mask, np.uint32)
        column = _column(heads, "u4", offset)
        column ^= texts
        expected = upper


def _clear_rest(heads: Windows, width: int) -> None:
    """Replace what follows the beginnings of lines in these items by zeros."""
    if rest := heads.itemsize - width:
        _column(heads, f"V{rest}", width)[...] = np.void(bytes(rest))


def _read_times(heads: Windows, width: int) -> set[bytes] | None:
    """Return the first and the last receivedAt of each second, from beginnings with cleared ids.

    Return None if one has another id, another layout, or a usage that is no object.
    """
    column = _column(heads, ">u4", width - _MIDDLE_BYTES + _POINT_OFFSET)
    ms = column.astype(np.uint32)
    ms ^= _ZERO_MS
    if ms.view(np.uint8).max() > _MAX_DIGIT:
        return None
    column &= _POINT_MASK
    # Lines that were received within a second are now equal, so few differ from the line before.
    words = heads.view(np.uint64)
    row_words = len(words) // len(heads)
    changed = np.flatnonzero(words[row_words:] != words[:-row_words]) // row_words + 1
    runs = [0, *sorted(set(changed.tolist()))]
    times = set()
    bounds = (np.minimum.reduceat(ms, runs), np.maximum.reduceat(ms, runs))
    for head, *values in zip(heads[runs], *bounds, strict=True):
        match = _BEGINNING.fullmatch(head.tobytes())
        if match is None:
            return None
        times |= {b"%b%bZ" % (match[1], (int(ms) ^ _ZERO_MS).to_bytes(4)) for ms in values}
    return times


def _are_objects(content: bytes, starts: Places, ends: Places, width: int) -> bool:
    """Return whether each line is one object that ends after its usage, or after a valid stamp.

    The parser refuses a newline within a string, and outside of one nothing but the end of an
    object can be between a `}` and a `{`. Each line begins with `{` and ends with `}`, so no object
    crosses a newline, and if there are as many objects as lines, each line is one.
    """
    data = np.frombuffer(content, np.uint8)
    if data.max() > _MAX_ASCII:
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
    lines = _keep_memory(-(-len(data) // _MEMORY_UNIT) * _MEMORY_UNIT)[: len(data)]
    lines[:] = data
    is_unstamped = data[ends - 2] == _BRACE
    if not (data[ends - 1] == _BRACE).all():
        return False
    if is_unstamped.all():
        # The members of the usage follow one more member, and its brace is the last.
        _replace(lines, starts, b'{"' + b"." * (width - 6) + b'":0,')
        lines[ends - 1] = _SPACE
        return count_objects(lines.data) == len(ends)
    stamped = count_stamped_lines(content)
    if stamped + int(is_unstamped.sum()) != len(ends):
        return False
    _replace(lines, starts, b'{"usage":{'.rjust(width))
    return count_stamped_objects(lines.data) == len(ends)


@lru_cache(maxsize=1)
def _keep_memory(size: int) -> Bytes:
    """Return memory for lines, the same for each block, which the processor's cache holds.

    A verification has one thread.
    """
    return np.empty(size, np.uint8)


def _replace(lines: Bytes, starts: Places, start: bytes) -> None:
    """Replace the beginnings of lines."""
    slide(lines, len(start))[starts] = np.frombuffer(start, f"V{len(start)}")
