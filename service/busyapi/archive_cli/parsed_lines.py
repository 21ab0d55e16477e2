"""The columns of lines of any layout: every line is parsed. `plain_lines` reads most lines faster.

Most of these lines, too, have nothing but the three members that the contract names: then the
length of the line proves it. Only the others are parsed again, for their further members.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from busyapi.archive.archived_usage import (
    NamedMembers,
    UsageRow,
    read_members,
    read_rows,
    render_members,
)
from busyapi.decode.timestamp import MAX_TIME_MS, compute_unix_ms
from busyapi.errors import ArchiveDamaged

TEXT, TIME = pa.string(), pa.timestamp("ms", tz="UTC")

_EMPTY_LINE = len(
    '{"id":,"receivedAt":"2026-11-23T19:12:00.123Z",'
    '"usage":{"patientId":,"timestamp":,"medication":""}}'
)
_WRITER, _TENANT = len(',"writer":""'), len(',"tenant":""')
_QUOTES = 2
_TEXT_OR_INT = {str, int}


class LineColumns(NamedTuple):
    """Columns of lines. The device's time is not parsed yet."""

    id: pa.Array
    received_at: pa.Array
    stamp_text: pa.Array
    """A timestamp as text; null if it is neither text nor a number."""
    stamp_number: pa.Array
    """A timestamp that is a whole number, null for any other."""
    stamp_other: pa.Array
    """The JSON of a timestamp that is a number with a fraction or an exponent."""
    patient_id: pa.Array
    medication: pa.Array
    tenant: pa.Array
    writer: pa.Array
    extra: pa.Array


def parse_lines(lines: bytes) -> LineColumns:
    """Return the columns of lines, each with its newline.

    Raises:
        ArchiveDamaged: one is not a line of the archive.
    """
    rows = read_rows(lines)
    size, usages = len(rows), [row.usage for row in rows]
    patient = _make_text_column([usage.patient_id for usage in usages])
    stamp = _make_text_column([usage.timestamp for usage in usages])
    # Only text is a medication.
    medication = _make_text_column([usage.medication for usage in usages], numbers=False)
    stamps: list[pa.Array | None] = [None, None]
    # Many archives have no stamps, and finding out that a block has none is cheap.
    if b',"writer":"' in lines:
        stamps = [
            pa.array([row.tenant for row in rows], TEXT),
            pa.array([row.writer for row in rows], TEXT),
        ]
    ids = pa.array([row.id for row in rows], pa.int64())
    measure = pc.binary_length if lines.isascii() else pc.utf8_length
    plain = _measure_plain_lines(measure, ids, [patient, stamp, medication], stamps)
    text = pc.split_pattern(pa.array([lines], pa.binary()).cast(TEXT), "\n").flatten()[:-1]
    is_longer = pc.fill_null(pc.not_equal(measure(text), plain), fill_value=True)
    at = pc.indices_nonzero(is_longer).to_pylist()
    extras, others = _read_extras(at, text.filter(is_longer).to_pylist(), rows)
    return LineColumns(
        ids,
        _make_received(rows),
        stamp.text,
        pa.nulls(size, pa.int64()) if stamp.numbers is None else stamp.numbers,
        _make_sparse(size, others),
        patient.text,
        medication.text,
        pa.nulls(size, TEXT) if stamps[0] is None else stamps[0],
        pa.nulls(size, TEXT) if stamps[1] is None else stamps[1],
        _make_sparse(size, extras),
    )


class _TextColumn(NamedTuple):
    """A member that may be text or a whole number."""

    text: pa.Array
    """Null for any other value."""
    quotes: pa.Array | int
    """How many quotation marks each value has in its line."""
    numbers: pa.Array | None
    """The numbers, null where the value is not one; None if there is none at all."""


def _make_text_column(values: list[Any], *, numbers: bool = True) -> _TextColumn:
    types = set(map(type, values))
    if types == {str}:
        return _TextColumn(pa.array(values, TEXT), _QUOTES, None)
    if int not in types or not numbers:
        texts = [value if type(value) is str else None for value in values]
        return _TextColumn(pa.array(texts, TEXT), _QUOTES, None)
    if types == _TEXT_OR_INT:
        texts = list(map(str, values))
    else:
        texts = [str(value) if type(value) in _TEXT_OR_INT else None for value in values]
    whole = _make_numbers([value if type(value) is int else None for value in values])
    quotes = pc.if_else(pc.is_valid(whole), 0, _QUOTES)
    return _TextColumn(pa.array(texts, TEXT), quotes, whole)


def _make_numbers(values: list[int | None]) -> pa.Array:
    try:
        return pa.array(values, pa.int64())
    except OverflowError:  # no time, nor an id of strict validation
        return pa.array([None if value is None else _limit(value) for value in values])


def _limit(number: int) -> int:
    return number if abs(number) <= MAX_TIME_MS else MAX_TIME_MS + 1


def _measure_plain_lines(
    measure: Callable[[pa.Array], pa.Array],
    ids: pa.Array,
    members: Sequence[_TextColumn],
    stamps: Sequence[pa.Array | None],
) -> pa.Array:
    """Return the characters that each line has if it has no other member; null if one is missing.

    No escape is shorter than what it means. So a line of this length has no escape either.
    """
    length = pc.add(pc.binary_length(ids.cast(TEXT)), _EMPTY_LINE - _QUOTES)
    for member in members:
        length = pc.add(length, pc.add(measure(member.text), member.quotes))
    for column, size in zip(stamps, (_TENANT, _WRITER), strict=True):
        if column is not None:
            length = pc.add(length, pc.coalesce(pc.add(measure(column), size), 0))
    return length


def _read_extras(
    positions: list[int], lines: list[str], rows: list[UsageRow]
) -> tuple[dict[int, str], dict[int, str]]:
    """Return by row the members that no other column holds, as JSON, and the unusual timestamps.

    A named member that is neither text nor a number stays there, so that nothing is lost. A
    timestamp may be a whole number with a fraction or an exponent.
    """
    extras: dict[int, str] = {}
    timestamps: dict[int, str] = {}
    for at, line in zip(positions, lines, strict=True):
        # The usual order: the named members first. No earlier member has a brace.
        usage = rows[at].usage
        patient, timestamp = usage.patient_id, usage.timestamp
        quote = "" if type(patient) is int else '"'
        mark = "" if type(timestamp) is int else '"'
        named = (
            f'"patientId":{quote}{patient}{quote},"timestamp":{mark}{timestamp}{mark},'
            f'"medication":"{usage.medication}",'
        )
        start = line.index("{", 1) + 1
        if line.startswith(named, start) and line.endswith("}}"):
            extra = "{" + line[start + len(named) : -1]
        else:
            extra = _collect_extra(line, usage, timestamps, at)
        if extra != "{}":
            extras[at] = extra
    return extras, timestamps


def _collect_extra(line: str, usage: NamedMembers, timestamps: dict[int, str], at: int) -> str:
    members = read_members(line)
    if type(usage.patient_id) in _TEXT_OR_INT:
        del members["patientId"]
    if type(usage.medication) is str:
        del members["medication"]
    if type(usage.timestamp) in _TEXT_OR_INT:
        del members["timestamp"]
    elif compute_unix_ms(usage.timestamp) is not None:
        timestamps[at] = members.pop("timestamp").decode()
    return render_members(members)


def _make_received(rows: list[UsageRow]) -> pa.Array:
    texts = [row.received_at for row in rows]
    try:
        # A batch of usages was received at one time.
        ms = {text: round(datetime.fromisoformat(text).timestamp() * 1000) for text in set(texts)}
    except (ValueError, OverflowError):
        reason = "a receivedAt is not a time"
    else:
        return pa.array(list(map(ms.__getitem__, texts)), pa.int64()).cast(TIME)
    raise ArchiveDamaged(reason)


def _make_sparse(size: int, values: dict[int, Any], kind: pa.DataType = TEXT) -> pa.Array:
    if not values:
        return pa.nulls(size, kind)
    return pa.array([values.get(at) for at in range(size)], kind)
