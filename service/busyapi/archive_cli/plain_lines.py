r"""The columns of lines of the usual layout, without an object of Python for any of them.

    {"id":1,"receivedAt":"…Z","usage":{"patientId":"7","timestamp":"…","medication":"A","more":1}}
    └─ parts of fixed length ────────────────────┘    └─ cut ─────┘   └─ cut ──────┘

No quote is in a text of JSON but with a backslash before it, and no control character at all. So
without a backslash in a line, the members' names with their punctuation are no part of a text, and
`\x01` can take their place: Arrow's reader of CSV then finds the columns. Every column is checked
to be one value. A line with a backslash, another order of members or a nested member of one of
these names is left to `parsed_lines`.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from busyapi.archive_cli.line_filter import cut_lines, find_all
from busyapi.archive_cli.parsed_lines import TEXT, TIME, LineColumns

_ID, _RECEIVED, _PATIENT = b'{"id":', b',"receivedAt":"', b'","usage":{"patientId":'
_TIMESTAMP, _MEDICATION, _WRITER = b',"timestamp":', b',"medication":"', b'},"writer":"'
# A replacement of the same length is made in place, which takes two thirds of the time.
_CUTS = [
    (marker, b"\x01" + letter * (len(marker) - 1))
    for marker, letter in ((_TIMESTAMP, b"t"), (_MEDICATION, b"m"), (_WRITER, b"w"))
]
_COLUMNS = ["head", "timestamp", "medication", "stamp"]
_TIME_LENGTH = len("2026-11-23T19:12:00.123Z")
_WRITER_LENGTH = 16
_SAMPLE_BYTES = 1 << 13
_END = 1 << 30
"""Slices end here: without an end, binary_slice of pyarrow 26 fails."""
_NUMBER = "^(?:0|-?[1-9][0-9]{0,14})$"
"""Digits that are the text of their number: `-0` is not."""
_STAMP = r'^w{11}[\w-]{16}"(?:,"tenant":"[^"]+")?\}$'


def read_plain_lines(lines: bytes) -> tuple[LineColumns | None, bytes]:
    """Return the columns of the plain lines, None if there is none, and all other lines."""
    digits = _count_digits(lines)
    if not digits or not _is_usual(lines, _PATIENT) or b"\x01" in lines:
        return None, lines
    is_stamped = _is_usual(lines, _WRITER)
    others: list[bytes] = []
    rest = lines
    if b"\\" in lines:
        others = list(cut_lines(lines, find_all(lines, [b"\\"])))
        rest = _remove(lines, others)
    try:
        table = _cut_columns(rest, others, is_stamped=is_stamped)
        return _read_columns(table, others, digits, is_stamped=is_stamped), b"".join(others)
    except pa.ArrowInvalid:
        # No line is plain, or one is not a line of the archive: the parser raises the right error.
        # `others` has lines of `rest` already.
        return None, lines


def _is_usual(lines: bytes, marker: bytes) -> bool:
    """Return whether most of the first lines have a marker. A wrong guess only takes longer.

    To search all lines for it takes a tenth of the time of everything else here.
    """
    # At least one line, however long: its stamp is at its end.
    sample = lines[: max(_SAMPLE_BYTES, lines.find(b"\n") + 1)]
    return sample.count(marker) * 2 >= sample.count(b"\n")


def _count_digits(lines: bytes) -> int:
    """Return how many digits the ids have; 0 if they differ in it."""
    last = lines.rfind(b"\n", 0, len(lines) - 1) + 1
    first_digits = lines.find(b",", 0, 64) - len(_ID)
    last_digits = lines.find(b",", last, last + 64) - last - len(_ID)
    return first_digits if first_digits == last_digits and first_digits > 0 else 0


def _remove(lines: bytes, others: Iterable[bytes]) -> bytes:
    parts, at = [], 0
    for line in others:
        start = lines.index(line, at)
        parts.append(lines[at:start])
        at = start + len(line)
    return b"".join([*parts, lines[at:]])


def _cut_columns(lines: bytes, others: list[bytes], *, is_stamped: bool) -> pa.Table:
    cuts = _CUTS if is_stamped else _CUTS[:-1]
    for marker, replacement in cuts:
        lines = lines.replace(marker, replacement)

    def set_aside(row: Any) -> str:
        others.append(_restore(row.text.encode()))
        return "skip"

    names = _COLUMNS if is_stamped else _COLUMNS[:-1]
    return csv.read_csv(
        pa.BufferReader(lines),
        csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=names),
        csv.ParseOptions(
            delimiter="\x01",
            quote_char=False,
            double_quote=False,
            escape_char=False,
            ignore_empty_lines=False,
            invalid_row_handler=set_aside,
        ),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
    )


def _read_columns(
    table: pa.Table, others: list[bytes], digits: int, *, is_stamped: bool
) -> LineColumns | None:
    """Return the columns; append the lines of the rows that are not plain to `others`."""
    head, timestamp, medication, *stamp = (column.combine_chunks() for column in table.columns)
    received_at = len(_ID) + digits + len(_RECEIVED)
    usage_at = received_at + _TIME_LENGTH
    patient = pc.binary_slice(head, usage_at + len(_PATIENT), _END)
    stamp_value = pc.binary_slice(timestamp, len(_TIMESTAMP) - 1, _END)
    # After the medication's quote: nothing or more members, and the end of the line.
    end = b"" if is_stamped else b"}}"
    texts = pc.binary_slice(medication, len(_MEDICATION) - 1, _END)
    names = pc.split_pattern(texts, b'"', max_splits=1)
    rest = pc.list_element(names, 1)
    is_plain = [
        pc.equal(pc.binary_slice(head, 0, len(_ID)), _ID),
        pc.equal(pc.binary_slice(head, len(_ID) + digits, received_at), _RECEIVED),
        pc.equal(pc.binary_slice(head, usage_at, usage_at + len(_PATIENT)), _PATIENT),
        _is_value(patient),
        _is_value(stamp_value),
        pc.or_(pc.equal(rest, end), pc.and_(pc.starts_with(rest, b","), pc.ends_with(rest, end))),
        *(pc.match_substring_regex(column, _STAMP) for column in stamp),
    ]
    plain = reduce(pc.and_, is_plain)
    if not pc.all(plain).as_py():
        rows = zip(
            *(column.to_pylist() for column in table.filter(pc.invert(plain)).columns), strict=True
        )
        others.extend(_restore(b"\x01".join(row)) for row in rows)
        table = table.filter(plain)
        if not table.num_rows:
            return None
        return _read_columns(table, others, digits, is_stamped=is_stamped)
    stamp_text, is_text = _read_value(stamp_value)
    numbers = pa.nulls(len(head), pa.int64())
    if not pc.all(is_text).as_py():
        numbers = pc.if_else(is_text, None, stamp_text).cast(pa.int64())
    size = -len(end) or _END
    has_extra = pc.not_equal(rest, end)
    members = pc.binary_slice(rest.filter(has_extra), 1, size)
    extra = pc.binary_join_element_wise(b"{", members, b"}", b"")
    return LineColumns(
        pc.binary_slice(head, len(_ID), len(_ID) + digits).cast(TEXT).cast(pa.int64()),
        pc.binary_slice(head, received_at, usage_at).cast(TEXT).cast(TIME),
        stamp_text,
        numbers,
        pa.nulls(len(head), TEXT),
        _read_value(patient)[0],
        pc.list_element(names, 0).cast(TEXT),
        *_split_stamp(stamp, len(head)),
        pc.replace_with_mask(pa.nulls(len(head), pa.binary()), has_extra, extra).cast(TEXT),
    )


def _is_value(values: pa.Array) -> pa.Array:
    """Return whether each is one text or number. It has no backslash."""
    is_text = pc.and_(pc.starts_with(values, b'"'), pc.ends_with(values, b'"'))
    is_text = pc.and_(is_text, pc.greater(pc.binary_length(values), 1))
    # Each of these has two quotes or more, so that a count of all shows whether one has more.
    if pc.sum(is_text, min_count=0).as_py() * 2 != _count_quotes(values):
        is_text = pc.and_(is_text, pc.equal(pc.count_substring(values, b'"'), 2))
    if pc.all(is_text).as_py():
        return is_text
    others = pc.invert(is_text)
    are_numbers = pc.match_substring_regex(values.filter(others), _NUMBER)
    return pc.replace_with_mask(is_text, others, are_numbers)


def _count_quotes(values: pa.Array) -> int:
    """Return how many quotes are in all of them, or more."""
    content = values.buffers()[2]
    return content.to_pybytes().count(b'"') if content else 0


def _restore(row: bytes) -> bytes:
    """Return the line of a row, in whatever order its cuts are."""
    for marker, replacement in _CUTS:
        row = row.replace(replacement, marker)
    return row + b"\n"


def _read_value(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the text of each value, and whether it was a text."""
    is_text = pc.starts_with(values, b'"')
    texts = pc.binary_slice(values, 1, -1)
    if not pc.all(is_text).as_py():
        texts = pc.if_else(is_text, texts, values)
    return texts.cast(TEXT), is_text


def _split_stamp(stamp: list[pa.Array], size: int) -> tuple[pa.Array, pa.Array]:
    """Return tenant and writer."""
    if not stamp:
        return pa.nulls(size, TEXT), pa.nulls(size, TEXT)
    raw = pc.binary_slice(stamp[0], len(_WRITER) - 1, _END)
    writer = pc.binary_slice(raw, 0, _WRITER_LENGTH)
    tenant = pc.binary_slice(raw, _WRITER_LENGTH + len('","tenant":"'), -2)
    has_tenant = pc.greater(pc.binary_length(raw), _WRITER_LENGTH + len('"}'))
    return pc.if_else(has_tenant, tenant, None).cast(TEXT), writer.cast(TEXT)
