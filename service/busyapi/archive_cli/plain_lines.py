r"""The columns of lines of the usual layout, without an object of Python for any of them.

    {"id":1,"receivedAt":"…Z","usage":{"patientId":"7","timestamp":"…","medication":"A","more":1}}
           └ 1               └ 2                      └ 3             └ 4              └ 5

Arrays find each `,"` of all lines at once. In a line of this layout, the third one ends the patient
and the fourth one the timestamp. All names are compared with what must be there, and each value is
checked to be one text or number. So other lines are seen, such as one with a `,` at the end of a
text or with another order of members. They, and those with a backslash, are left to `parsed_lines`.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from busyapi.archive_cli.line_arrays import (
    Bytes,
    Flags,
    Places,
    has_text,
    parse_numbers,
    read_rows_of_bytes,
)
from busyapi.archive_cli.parsed_lines import TEXT, TIME, LineColumns

_ID, _RECEIVED, _PATIENT = b'{"id":', b',"receivedAt":"', b'","usage":{"patientId":'
_TIMESTAMP, _MEDICATION = b',"timestamp":', b',"medication":"'
_WRITER, _TENANT, _STAMP_END = b'},"writer":"', b'","tenant":"', b'"}'
_TIME_BYTES, _WRITER_BYTES = len("2026-11-23T19:12:00.123Z"), 16
_NEWLINE, _COMMA, _QUOTE, _BACKSLASH, _OPEN, _CLOSE = b'\n,"\\{}'
_MAX_DIGITS = 18
_PADDING = bytes(256)
"""Behind the last line: of a line with another layout, a place behind its end may be read."""
_NUMBER = "^(?:0|-?[1-9][0-9]{0,14})$"
"""Digits that are the text of their number: `-0` is not."""
_DIGEST = r"^[\w-]{16}$"


class _Lines(NamedTuple):
    """Where each line has what."""

    start: Places
    received: Places
    """The comma after the id."""
    patient: Places
    """The value."""
    timestamp: Places
    """The comma before this member."""
    medication: Places
    """The comma before this member."""
    rest: Places
    """What comes after the medication: the comma of a further member, or `stop`."""
    stop: Places
    """The brace that ends the usage."""
    end: Places
    """The newline."""

    @property
    def is_stamped(self) -> Flags:
        """Return which lines have a stamp."""
        is_stamped: Flags = self.stop != self.end - len("}}")
        return is_stamped


def read_plain_lines(lines: bytes) -> tuple[LineColumns | None, bytes]:
    """Return the columns of the plain lines, None if there is none, and all other lines."""
    digits = _count_digits(lines)
    if not 0 < digits <= _MAX_DIGITS or not lines.endswith(b"\n"):
        return None, lines
    data = np.frombuffer(bytearray().join((lines, _PADDING)), np.uint8)
    places = _find_members(data, digits)
    is_plain = _have_names(data, places)
    if b"\\" in lines:
        is_plain[np.searchsorted(places.end, np.flatnonzero(data == _BACKSLASH))] = False
    is_plain &= _are_values(data, places.patient, places.timestamp, is_plain)
    is_plain &= _are_values(data, places.timestamp + len(_TIMESTAMP), places.medication, is_plain)
    others: list[bytes] = []
    if not is_plain.all():
        bounds = (places.start[~is_plain].tolist(), places.end[~is_plain].tolist())
        others = [lines[start : end + 1] for start, end in zip(*bounds, strict=True)]
        places = _Lines(*(place[is_plain] for place in places))
    try:
        columns = _read_columns(data, places, digits) if len(places.start) else None
    except pa.ArrowInvalid:  # a wrong time or wrong UTF-8: the parser raises the right error
        columns = None
    return (None, lines) if columns is None else (columns, b"".join(others))


def _count_digits(lines: bytes) -> int:
    """Return how many digits the ids have; 0 if they differ in it."""
    last = lines.rfind(b"\n", 0, len(lines) - 1) + 1
    first_digits = lines.find(b",", 0, 64) - len(_ID)
    last_digits = lines.find(b",", last, last + 64) - last - len(_ID)
    return first_digits if first_digits == last_digits else 0


def _find_members(data: Bytes, digits: int) -> _Lines:
    """Return where the members are. Of a line with another layout, any place may be wrong."""
    is_mark = data == _COMMA
    is_mark[:-1] &= data[1:] == _QUOTE
    is_mark |= data == _NEWLINE
    marks = np.flatnonzero(is_mark)
    last = np.flatnonzero(data[marks] == _NEWLINE)
    first = np.concatenate([[0], last[:-1] + 1])
    end = marks[last]
    start = np.concatenate([[0], end[:-1] + 1])
    timestamp, medication, fifth = (marks.take(first + at, mode="clip") for at in (2, 3, 4))
    stop = end - len("}}")
    is_stamped = data[stop] == _QUOTE
    if is_stamped.any():
        # The last member of a line is the tenant, or the writer if there is none.
        has_tenant = data[marks.take(last - 1, mode="clip") + len(',"')] == ord("t")
        writer = marks.take(last - 1 - has_tenant, mode="clip")
        stop = np.where(is_stamped, writer - len("}"), stop)
    received = start + (len(_ID) + digits)
    patient = received + (len(_RECEIVED) + _TIME_BYTES + len(_PATIENT))
    rest = np.minimum(fifth, stop)
    return _Lines(start, received, patient, timestamp, medication, rest, stop, end)


def _have_names(data: Bytes, places: _Lines) -> Flags:
    """Return whether each line has the usual names where they must be."""
    is_plain = has_text(data, places.start, _ID)
    is_plain &= has_text(data, places.received, _RECEIVED)
    is_plain &= has_text(data, places.patient - len(_PATIENT), _PATIENT)
    is_plain &= has_text(data, places.timestamp, _TIMESTAMP)
    is_plain &= has_text(data, places.medication, _MEDICATION)
    is_plain &= places.medication + len(_MEDICATION) < places.rest
    is_plain &= data[places.rest - 1] == _QUOTE
    is_plain &= (data[places.stop] == _CLOSE) & (data[places.end - 1] == _CLOSE)
    if places.is_stamped.any():
        is_plain &= ~places.is_stamped | _have_stamp(data, places)
    return is_plain


def _have_stamp(data: Bytes, places: _Lines) -> Flags:
    tenant = places.stop + (len(_WRITER) + _WRITER_BYTES)
    end = places.end - len(_STAMP_END)
    has_tenant = has_text(data, tenant, _TENANT) & (tenant + len(_TENANT) < end)
    is_stamp: Flags = has_text(data, places.stop, _WRITER)
    is_stamp &= has_tenant | (tenant == end)
    return is_stamp


def _are_values(data: Bytes, starts: Places, stops: Places, is_plain: Flags) -> Flags:
    """Return whether each value of a plain line is a number, or begins and ends as a text."""
    is_text = data[starts] == _QUOTE
    result: Flags = is_text & (data[stops - 1] == _QUOTE) & (stops - starts > 1)
    numbers = np.flatnonzero(is_plain & ~is_text)
    if len(numbers):
        texts = _cut(data, starts[numbers], stops[numbers], pa.binary())
        are_numbers = pc.match_substring_regex(texts, _NUMBER)
        result[numbers] = are_numbers.to_numpy(zero_copy_only=False)
    return result


def _read_columns(data: Bytes, places: _Lines, digits: int) -> LineColumns | None:
    """Return the columns; None if an id, a stamp or a text is not one of JSON."""
    ids = parse_numbers(read_rows_of_bytes(data, places.start + len(_ID), digits))
    stamp, is_text = _cut_values(data, places.timestamp + len(_TIMESTAMP), places.medication)
    patient, _ = _cut_values(data, places.patient, places.timestamp)
    medication = _cut(data, places.medication + len(_MEDICATION), places.rest - 1)
    tenant, writer = _cut_stamps(data, places)
    if ids is None or any(map(_has_quote, (stamp, patient, medication, tenant))):
        return None
    if pc.any(pc.invert(pc.match_substring_regex(writer, _DIGEST))).as_py():
        return None
    size = len(ids)
    numbers = pa.nulls(size, pa.int64())
    if not is_text.all():
        numbers = pc.if_else(pa.array(is_text), None, stamp).cast(pa.int64())
    has_extra = places.rest < places.stop
    data[places.rest[has_extra]] = _OPEN  # instead of the comma; no other column has it
    return LineColumns(
        pa.array(ids),
        _read_times(read_rows_of_bytes(data, places.received + len(_RECEIVED), _TIME_BYTES)),
        stamp,
        numbers,
        pa.nulls(size, TEXT),
        patient,
        medication,
        tenant,
        writer,
        _cut(data, places.rest, places.stop + 1, is_valid=has_extra),
    )


def _cut(
    data: Bytes,
    starts: Places,
    stops: Places,
    kind: pa.DataType = TEXT,
    is_valid: Flags | None = None,
) -> pa.Array:
    """Return the texts between these places, null for those that are not valid."""
    bounds = np.empty((len(starts), 2), np.int32)
    bounds[:, 0], bounds[:, 1] = starts, stops
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    # Every other one is what lies between two texts.
    texts = pa.Array.from_buffers(pa.binary(), bounds.size - 1, buffers)
    chosen = np.arange(0, bounds.size, 2)
    return texts.take(pa.array(chosen, mask=None if is_valid is None else ~is_valid)).cast(kind)


def _cut_values(data: Bytes, starts: Places, stops: Places) -> tuple[pa.Array, Flags]:
    """Return the text of each value, and whether it has quotes around it."""
    is_text = data[starts] == _QUOTE
    return _cut(data, starts + is_text, stops - is_text), is_text


def _cut_stamps(data: Bytes, places: _Lines) -> tuple[pa.Array, pa.Array]:
    """Return tenant and writer."""
    if not places.is_stamped.any():
        return pa.nulls(len(places.start), TEXT), pa.nulls(len(places.start), TEXT)
    # The lines without one have an empty range, at their end.
    end = places.end - len(_STAMP_END)
    writer = np.where(places.is_stamped, places.stop + len(_WRITER), end)
    writer_end = np.where(places.is_stamped, writer + _WRITER_BYTES, end)
    tenant = np.minimum(writer_end + len(_TENANT), end)
    return (
        _cut(data, tenant, end, is_valid=tenant < end),
        _cut(data, writer, writer_end, is_valid=places.is_stamped),
    )


def _has_quote(texts: pa.Array) -> bool:
    content = texts.buffers()[2]
    return bool(content and (np.frombuffer(content, np.uint8) == _QUOTE).any())


def _read_times(texts: Bytes) -> pa.Array:
    """Return the times of texts. Usages that were received together have one."""
    words = texts.view(np.uint64)
    is_first = np.ones(len(words), np.bool_)
    is_first[1:] = (words[1:] != words[:-1]).any(axis=1)
    chosen = texts[is_first]
    buffers = [None, pa.py_buffer(chosen)]
    times = pa.Array.from_buffers(pa.binary(_TIME_BYTES), len(chosen), buffers)
    times = times.cast(pa.binary()).cast(TEXT).cast(TIME)
    return times.take(pa.array(np.cumsum(is_first) - 1))
