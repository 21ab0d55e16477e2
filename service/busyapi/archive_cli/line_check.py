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
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from busyapi.archive.archived_usage import count_objects, count_stamped_objects
from busyapi.archive.frames import find_ends
from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.line_arrays import Bytes, Places, parse_numbers
from busyapi.stamp import count_stamped_lines
from busyapi.strides import IdScheme

_BEGINNING = re.compile(
    rb'\{"id":\0+,"receivedAt":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.)\0{3}Z","usage":\{\0*'
)
"""The beginning of a line, with zeros for its id, for its milliseconds and behind it."""
_ID_OFFSET = len('{"id":')
_MS_OFFSET = len(',"receivedAt":"2026-11-23T19:12:00.')
_MS_DIGITS = 3
_MIDDLE_BYTES = len(',"receivedAt":"2026-11-23T19:12:00.123Z","usage":{')
_MIN_REST_BYTES = len('"":1}}')
_WORD_BYTES, _WHOLE_WORD = 8, (1 << 64) - 1
_NEWLINE, _BRACE, _SPACE = b"\n} "


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
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    first = ids.id_of(seqs.first)
    digits = len(str(first))
    width = _ID_OFFSET + digits + _MIDDLE_BYTES
    # Of shorter lines, the arrays below would read and change bytes of the next line.
    shortest = int((ends - starts).min())
    if len(ends) != seqs.last - seqs.first + 1 or shortest < width + _MIN_REST_BYTES:
        return None
    rows = sliding_window_view(data, -(-width // _WORD_BYTES) * _WORD_BYTES)[starts]
    numbers = parse_numbers(rows[:, _ID_OFFSET : _ID_OFFSET + digits])
    expected = np.arange(len(ends)) * ids.owner_at(seqs.first)[1] + first
    if numbers is None or (numbers != expected).any():
        return None
    times = _read_times(rows, digits)
    if times is None or not _are_objects(content, starts, ends, width):
        return None
    return CheckedLines(seqs, times)


def _read_times(rows: Bytes, digits: int) -> set[bytes] | None:
    """Return the first and the last receivedAt of each second, from the beginnings of lines.

    Return None if one has another layout, or a usage that is no object.
    """
    ms_at = _ID_OFFSET + digits + _MS_OFFSET
    ms = parse_numbers(rows[:, ms_at : ms_at + _MS_DIGITS])
    if ms is None:
        return None
    mask = bytearray(b"\xff" * (_ID_OFFSET + digits + _MIDDLE_BYTES)).ljust(rows.shape[1], b"\0")
    mask[_ID_OFFSET : _ID_OFFSET + digits] = bytes(digits)
    mask[ms_at : ms_at + _MS_DIGITS] = bytes(_MS_DIGITS)
    words = rows.view(np.uint64)
    for column, kept in enumerate(np.frombuffer(mask, np.uint64)):
        if kept != _WHOLE_WORD:
            words[:, column] &= kept
    # Lines that were received within a second are now equal, so few differ from the line before.
    changed = np.unique(np.flatnonzero(words[1:] != words[:-1]) // words.shape[1] + 1)
    runs = np.array([0, *changed])
    times = set()
    bounds = (np.minimum.reduceat(ms, runs), np.maximum.reduceat(ms, runs))
    for row, lowest, highest in zip(words[runs], *bounds, strict=True):
        match = _BEGINNING.fullmatch(row.tobytes())
        if match is None:
            return None
        times |= {b"%b%03dZ" % (match[1], value) for value in (lowest, highest)}
    return times


def _are_objects(content: bytes, starts: Places, ends: Places, width: int) -> bool:
    """Return whether each line is one object that ends after its usage, or after a valid stamp.

    The parser refuses a newline within a string, and outside of one nothing but the end of an
    object can be between a `}` and a `{`. Each line begins with `{` and ends with `}`, so no object
    crosses a newline, and if there are as many objects as lines, each line is one.
    """
    if not content.isascii():
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
    lines = bytearray(content)
    data = np.frombuffer(lines, np.uint8)
    is_unstamped = data[ends - 2] == _BRACE
    if not (data[ends - 1] == _BRACE).all():
        return False
    if is_unstamped.all():
        # The members of the usage follow one more member, and its brace is the last.
        _replace(data, starts, b'{"' + b"." * (width - 6) + b'":0,')
        data[ends - 1] = _SPACE
        return count_objects(lines) == len(ends)
    stamped = count_stamped_lines(content)
    if stamped + int(is_unstamped.sum()) != len(ends):
        return False
    _replace(data, starts, b'{"usage":{'.rjust(width))
    return count_stamped_objects(lines) == len(ends)


def _replace(data: Bytes, starts: Places, start: bytes) -> None:
    """Replace the beginnings of lines."""
    window = sliding_window_view(data, len(start), writeable=True)
    window[starts] = np.frombuffer(start, np.uint8)
